//! One row missing, extra or different at the first, a middle and the last place, for every kind of key.

use repcloud::model::TableName;
use repcloud::verify::{Kind, VerifySpec};

use crate::world::{World, found, samples};

/// A table: SQL name, columns on the source, on the target, and the key's values made of `n`.
struct Case {
    name: TableName,
    source: &'static str,
    target: &'static str,
    values: &'static str,
    key: &'static [&'static str],
}

fn case(table: &str, columns: &'static str, values: &'static str, key: &'static [&'static str]) -> Case {
    Case { name: TableName::new("public", table), source: columns, target: columns, values, key }
}

const MIXED: &str = "(array['Ä','ä','a','A','ß','z','Z','é','日本','_'])[n % 10 + 1] || n";

fn cases() -> Vec<Case> {
    vec![
        case("int_key", "id int primary key", "n", &["id"]),
        Case {
            name: TableName::new("Big \"Schema\"", "Select"),
            ..case("", "\"Or der\" bigint primary key", "n * 1000000007::bigint", &["Or der"])
        },
        case("composite", "a int, b text, primary key (a, b)", "n / 10, 'K' || n", &["a", "b"]),
        Case {
            target: "a text collate \"C\" primary key",
            ..case("text_key", "a text collate \"en-x-icu\" primary key", MIXED, &["a"])
        },
        case("c_key", "a text collate \"C\" primary key", MIXED, &["a"]),
        case("char_key", "a char(9), b int, primary key (a, b)", "'Ab ' || n % 7, n", &["a", "b"]),
        case("numeric_key", "a numeric primary key", "n / 10.0 - 5", &["a"]),
        case("uuid_key", "a uuid primary key", "md5(n::text)::uuid", &["a"]),
        case(
            "time_key",
            "a timestamptz, b date, primary key (a, b)",
            "to_timestamp(n / 5), date '2024-01-01' + n",
            &["a", "b"],
        ),
        case(
            "bytea_key",
            "a bytea, b boolean, primary key (a, b)",
            "decode(md5(n::text), 'hex'), n % 2 = 0",
            &["a", "b"],
        ),
        Case { target: "a bigint primary key", ..case("other_type", "a int primary key", "n - 50", &["a"]) },
        Case {
            target: "a text primary key",
            ..case(
                "enum_key",
                "a colour, b int, primary key (a, b)",
                "(array['red','green','blue'])[n % 3 + 1]::colour, n",
                &["a", "b"],
            )
        },
        case("domain_key", "a small, primary key (a)", "n", &["a"]),
        case("no_key", "a int", "n % 5", &[]),
        case("nullable_key", "a int unique", "nullif(n, 50)", &["a"]),
    ]
}

const ROWS: u64 = 100;

async fn fill(world: &World, case: &Case) {
    let Case { name, values, .. } = case;
    let insert = format!(
        "insert into {name} select {values}, n, 'value ' || n, n / 3.0, now() \
         from generate_series(1, {ROWS}) n"
    );
    world.source.exec(&insert).await;
    // The same rows, by way of their text.
    let rows = world.source.query_text(&format!("select r::text from {name} r")).await;
    for row in rows {
        let text = row[0].clone().unwrap().replace('\'', "''");
        let sql = format!("insert into {name} select (r).* from (select '{text}'::{name} as r) x");
        world.target.exec(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_row_is_found_wherever_it_is() {
    let world = World::start().await;
    world.both("create schema \"Big \"\"Schema\"\"\"; create domain small as int check (value < 1000)").await;
    world.source.exec("create type colour as enum ('red', 'green', 'blue')").await;
    world.target.exec("create type colour as enum ('blue', 'red', 'green')").await;
    for mut case in cases() {
        if case.name.table == "enum_key" {
            case.target = case.source;
        }
        let name = &case.name;
        let more = "n int, v text, x numeric, t timestamptz";
        for (db, columns) in [(&world.source, case.source), (&world.target, case.target)] {
            // Constraints come last.
            let (columns, constraint) = match columns.split_once(", primary key (") {
                Some((columns, key)) => (columns, format!(", primary key ({key}")),
                None => (columns, String::new()),
            };
            db.exec(&format!("create table {name} ({columns}, {more}{constraint})")).await;
        }
        fill(&world, &case).await;
        check(&world, &case).await;
    }
}

async fn check(world: &World, case: &Case) {
    let name = &case.name;
    let key = case.key.iter().map(|k| (*k).to_owned()).collect();
    let spec = VerifySpec::new(name.clone(), name.clone(), key);
    let outcome = world.verify(&spec).await;
    assert_eq!((outcome.rows, found(&outcome)), (ROWS, (0, 0, 0)), "{name} as it was filled");
    let order = match case.key {
        [] => "n".to_owned(),
        key => key.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(", "),
    };
    let places = world
        .source
        .query_text(&format!(
            "select n from (select n, row_number() over (order by {order}) as i from {name}) x \
             where i in (1, 50, {ROWS}) order by i"
        ))
        .await;
    let keyed = !case.key.is_empty() && name.table != "nullable_key";
    let kinds = [Kind::Missing, Kind::Extra, Kind::Different];
    // Every kind once at every place; each change is made and undone on one side.
    for turn in 0..kinds.len() {
        let mut expected = Vec::new();
        let mut undo = Vec::new();
        for (at, place) in places.iter().enumerate() {
            let n = place[0].clone().unwrap();
            let kind = kinds[(at + turn) % kinds.len()];
            let row = format!("{name} where n = {n}");
            let db = if kind == Kind::Extra { &world.source } else { &world.target };
            let change = match kind {
                Kind::Different => format!("update {name} set v = v || ' ' where n = {n}"),
                _ => format!("delete from {row}"),
            };
            let kept = format!("kept_{n}");
            db.exec(&format!("create temp table {kept} as select * from {row}; {change}")).await;
            if keyed {
                let parts: Vec<String> = case.key.iter().map(|k| format!("\"{k}\"::text")).collect();
                let text = format!("select {} from {kept}", parts.join("||'|'||"));
                expected.push((kind, db.value(&text).await));
            }
            let back =
                format!("delete from {row}; insert into {name} select * from {kept}; drop table {kept}");
            undo.push((db, back));
        }
        expected.sort();
        let outcome = world.verify(&spec).await;
        // Without a key a different row is one too few and one too many.
        assert_eq!(found(&outcome), if keyed { (1, 1, 1) } else { (2, 2, 0) }, "{name}, turn {turn}");
        assert!(outcome.complete);
        if keyed {
            assert_eq!(samples(&outcome), expected, "{name}, turn {turn}");
        }
        for (db, back) in undo {
            db.exec(&back).await;
        }
    }
    let outcome = world.verify(&spec).await;
    assert_eq!(found(&outcome), (0, 0, 0), "{name} as it was again");
}
