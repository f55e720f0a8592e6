//! What is written to the source before it is drained.

use crate::Options;

/// Eight columns; numeric, timestamptz, text and jsonb among them.
pub(crate) const ITEMS: &str = "CREATE TABLE items (id bigint PRIMARY KEY, customer int NOT NULL, amount numeric(12,2) NOT NULL, \
     created_at timestamptz NOT NULL, name text NOT NULL, details jsonb, status smallint NOT NULL, note text);";

/// The select list of a row of `items`.
pub(crate) const ROW: &str = "i, (i * 37 % 1000)::int, (i * 1.37 % 1000000)::numeric(12,2), \
     timestamptz '2024-01-01 00:00:00.123456+00' + i * interval '1 second', 'customer number ' || i, \
     jsonb_build_object('items', jsonb_build_array(i, i + 1), 'paid', true), (i % 5)::smallint, 'a note of some length'";

/// How a backlog is made.
pub(crate) enum Fill {
    /// SQL, given the round.
    Sql(Box<dyn Fn(usize) -> String>),
    /// pgbench, transactions of each of four clients.
    Pgbench(u64),
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// Tables and first rows.
    pub(crate) setup: String,
    /// pgbench's own tables instead, at this scale.
    pub(crate) pgbench_scale: Option<u64>,
    pub(crate) fill: Fill,
    /// Of one round.
    pub(crate) changes: u64,
}

fn rows(count: u64) -> String {
    format!("{ITEMS}\nINSERT INTO items SELECT {ROW} FROM generate_series(1, {count}) i;")
}

pub(crate) fn all(options: &Options) -> Vec<Workload> {
    vec![tpcb(options), mixed(options), updates(options), inserts(options)]
}

fn tpcb(options: &Options) -> Workload {
    let each = options.size(250, 10_000);
    Workload {
        name: "tpcb",
        title: format!("pgbench TPC-B, {} transactions", each * 4),
        setup: String::new(),
        pgbench_scale: Some(options.size(1, 5)),
        fill: Fill::Pgbench(each),
        changes: each * 4 * 4,
    }
}

/// A third each of inserts, updates and deletes.
fn mixed(options: &Options) -> Workload {
    let transactions = options.size(5, 300);
    let third = 333;
    let gone = options.rounds as u64 * transactions * third;
    let kept = options.size(2_000, 200_000);
    let fill = move |round: usize| {
        let first = round as u64 * transactions;
        format!(
            "DO $$ BEGIN FOR t IN {first}..{last} LOOP
               INSERT INTO items SELECT {ROW} FROM generate_series({new} + t * {third} + 1, {new} + (t + 1) * {third}) i;
               UPDATE items SET amount = amount + 1, status = (status + 1) % 5, details = details || '{{\"seen\": true}}'
                WHERE id IN (SELECT {gone} + 1 + (k::bigint * 7919) % {kept} FROM generate_series(t * 334, t * 334 + 333) k);
               DELETE FROM items WHERE id BETWEEN t * {third} + 1 AND (t + 1) * {third};
               COMMIT;
             END LOOP; END $$;",
            last = first + transactions - 1,
            new = gone + kept,
        )
    };
    Workload {
        name: "mixed",
        title: format!("mixed, {transactions} transactions of 1,000 rows"),
        setup: rows(gone + kept),
        pgbench_scale: None,
        fill: Fill::Sql(Box::new(fill)),
        changes: transactions * 1_000,
    }
}

fn updates(options: &Options) -> Workload {
    let (transactions, size) = (options.size(2, 30), options.size(1_000, 10_000));
    let fill = move |_: usize| {
        format!(
            "DO $$ BEGIN FOR t IN 0..{last} LOOP
               UPDATE items SET amount = amount + 1, status = (status + 1) % 5, created_at = created_at + interval '1 day'
                WHERE id BETWEEN t * {size} + 1 AND (t + 1) * {size};
               COMMIT;
             END LOOP; END $$;",
            last = transactions - 1,
        )
    };
    Workload {
        name: "updates",
        title: format!("{transactions} updates of {size} rows"),
        setup: rows(transactions * size),
        pgbench_scale: None,
        fill: Fill::Sql(Box::new(fill)),
        changes: transactions * size,
    }
}

fn inserts(options: &Options) -> Workload {
    let count = options.size(5_000, 1_000_000);
    let fill = move |round: usize| {
        let first = round as u64 * count;
        format!("INSERT INTO items SELECT {ROW} FROM generate_series({} , {}) i;", first + 1, first + count)
    };
    Workload {
        name: "inserts",
        title: format!("one insert of {count} rows"),
        setup: ITEMS.to_owned(),
        pgbench_scale: None,
        fill: Fill::Sql(Box::new(fill)),
        changes: count,
    }
}
