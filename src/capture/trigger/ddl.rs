//! What stands on the source for one captured table: queue, functions, triggers. Pure.

use crate::model::{Oid, quote_ident};

/// The trigger of rows. Triggers fire by name, and `!` comes before every letter: a trigger of the application that
/// changes a row again is queued after the change it reacts to.
pub const ROW_TRIGGER: &str = "!repcloud_row";
/// The trigger of TRUNCATE.
pub const TRUNCATE_TRIGGER: &str = "!repcloud_truncate";

/// Where snapshots are written down: one row a batch.
pub const TICKS: &str = "\
CREATE TABLE IF NOT EXISTS repcloud.tick (
    consumer   text        NOT NULL,
    number     bigint      NOT NULL,
    queue      oid         NOT NULL,
    generation bigint      NOT NULL,
    snapshot   pg_snapshot NOT NULL,
    shape      text        NOT NULL,
    made_at    timestamptz NOT NULL,
    PRIMARY KEY (consumer, number))";

/// Settings under which a row becomes text: as the sessions that read it have them, whatever the writer's are.
const PINNED: &str = "SET search_path = pg_catalog, pg_temp SET \"DateStyle\" = 'ISO, YMD' SET \"IntervalStyle\" = 'postgres' \
     SET \"TimeZone\" = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' \
     SET xmlbinary = 'base64' SET quote_all_identifiers = off";

/// The name of the queue of the table with this oid, in schema `repcloud`.
pub fn queue_name(table: Oid) -> String {
    format!("queue_{table}")
}

/// Makes everything, in order, for one transaction. `sql_name` is the table, quoted; of an unlogged table the queue is
/// unlogged as well: after a crash of the server both are empty.
pub fn create(table: Oid, sql_name: &str, unlogged: bool) -> Vec<String> {
    let queue = format!("repcloud.{}", queue_name(table));
    let kind = if unlogged { "UNLOGGED TABLE" } else { "TABLE" };
    let insert = |columns: &str, values: &str| {
        format!(
            "INSERT INTO {queue} (seq, xid, op{columns}) VALUES (pg_catalog.nextval('{queue}_seq'), \
             pg_catalog.pg_current_xact_id(), {values});"
        )
    };
    // format: by the type's output function, whatever casts there are.
    let rows = format!(
        "IF TG_OP = 'INSERT' THEN {} ELSIF TG_OP = 'UPDATE' THEN {} ELSE {} END IF; RETURN NULL;",
        insert(", new", "'I', pg_catalog.format('%s', NEW)"),
        insert(", old, new", "'U', pg_catalog.format('%s', OLD), pg_catalog.format('%s', NEW)"),
        insert(", old", "'D', pg_catalog.format('%s', OLD)"),
    );
    let truncate = format!("{} RETURN NULL;", insert("", "'T'"));
    let mut all = vec![
        // Looked up by name when the function runs, and never cached in a session: rows of one key keep their order.
        format!("CREATE SEQUENCE {queue}_seq CACHE 1"),
        format!(
            "CREATE {kind} {queue} (seq bigint PRIMARY KEY, xid xid8 NOT NULL, op \"char\" NOT NULL, old text, new text) \
             WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
        ),
        format!("ALTER SEQUENCE {queue}_seq OWNED BY {queue}.seq"),
    ];
    for (name, body) in [("row", &rows), ("truncate", &truncate)] {
        let function = format!("{queue}_{name}()");
        all.push(format!(
            "CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {PINNED} \
             AS $repcloud$BEGIN {body} END$repcloud$"
        ));
        // Nobody else may hang it on a table of his own.
        all.push(format!("REVOKE ALL ON FUNCTION {function} FROM PUBLIC"));
    }
    let (row, statement) = (quote_ident(ROW_TRIGGER), quote_ident(TRUNCATE_TRIGGER));
    all.push(format!(
        "CREATE TRIGGER {row} AFTER INSERT OR UPDATE OR DELETE ON {sql_name} FOR EACH ROW EXECUTE FUNCTION {queue}_row()"
    ));
    all.push(format!(
        "CREATE TRIGGER {statement} AFTER TRUNCATE ON {sql_name} FOR EACH STATEMENT EXECUTE FUNCTION {queue}_truncate()"
    ));
    // Replicated writes, and restores, too.
    for trigger in [row, statement] {
        all.push(format!("ALTER TABLE {sql_name} ENABLE ALWAYS TRIGGER {trigger}"));
    }
    all
}

/// Removes everything, in order, for one transaction: the triggers first, so that no write meets a queue that is gone.
/// `sql_name`: the table, where it has our triggers still.
pub fn drop(table: Oid, sql_name: Option<&str>) -> Vec<String> {
    let queue = format!("repcloud.{}", queue_name(table));
    let mut all = Vec::new();
    if let Some(name) = sql_name {
        for trigger in [ROW_TRIGGER, TRUNCATE_TRIGGER] {
            all.push(format!("DROP TRIGGER IF EXISTS {} ON {name}", quote_ident(trigger)));
        }
    }
    for function in ["row", "truncate"] {
        all.push(format!("DROP FUNCTION IF EXISTS {queue}_{function}()"));
    }
    all.push(format!("DROP TABLE IF EXISTS {queue}"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_come_last_and_go_first() {
        let create = create(7, "public.t", false);
        let first = create.iter().position(|sql| sql.starts_with("CREATE TRIGGER")).unwrap();
        assert!(
            create[first..]
                .iter()
                .all(|sql| sql.contains(" ON public.t")
                    || sql.starts_with("ALTER TABLE public.t ENABLE ALWAYS"))
        );
        let drop = drop(7, Some("public.t"));
        assert!(drop[0].starts_with("DROP TRIGGER") && drop[1].starts_with("DROP TRIGGER"), "{drop:?}");
        assert!(super::drop(7, None).iter().all(|sql| !sql.contains("TRIGGER")));
    }

    #[test]
    fn our_triggers_fire_before_any_that_begins_with_a_letter_a_digit_or_a_line() {
        for other in ["A", "a", "0", "_", "zz"] {
            for ours in [ROW_TRIGGER, TRUNCATE_TRIGGER] {
                assert!(ours < other, "{ours} {other}");
            }
        }
    }

    #[test]
    fn the_queue_of_an_unlogged_table_is_unlogged() {
        assert!(create(7, "t", true)[1].starts_with("CREATE UNLOGGED TABLE repcloud.queue_7 "));
        assert!(create(7, "t", false)[1].starts_with("CREATE TABLE repcloud.queue_7 "));
    }
}
