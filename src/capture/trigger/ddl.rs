//! What stands on the source for one captured table: queue, functions, triggers. Pure.

use crate::model::{Oid, quote_ident};

/// The trigger of rows. Triggers fire by name, and `!` comes before every letter: a trigger of the application that
/// changes a row again is queued after the change it reacts to. One whose name comes before it is refused.
pub const ROW_TRIGGER: &str = "!repcloud_row";
/// The trigger of TRUNCATE.
pub const TRUNCATE_TRIGGER: &str = "!repcloud_truncate";

/// Where snapshots are written down: one row a batch. `lsn`: what a stream shows as its position, where the WAL was then.
pub const TICKS: &str = "\
CREATE TABLE IF NOT EXISTS repcloud.tick (
    consumer   text        NOT NULL,
    number     bigint      NOT NULL,
    queue      oid         NOT NULL,
    generation bigint      NOT NULL,
    snapshot   pg_snapshot NOT NULL,
    shape      text        NOT NULL,
    made_at    timestamptz NOT NULL,
    lsn        pg_lsn,
    PRIMARY KEY (consumer, number))";

/// Which streams read which queues, and the condition under which the rows were copied. A queue row goes only when every one of them
/// has it durably.
pub const READS: &str = "\
CREATE TABLE IF NOT EXISTS repcloud.reads (
    consumer  text NOT NULL,
    queue     oid  NOT NULL,
    condition text,
    PRIMARY KEY (consumer, queue))";

/// The one sequence of all queues that streams read: it orders changes of different tables, of one transaction as of
/// several that waited for each other.
pub const SHARED_SEQUENCE: &str = "CREATE SEQUENCE IF NOT EXISTS repcloud.queue_seq CACHE 1";

/// How a queue is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKind {
    /// Of an unlogged table.
    pub unlogged: bool,
    /// Its numbers come from the one sequence of all streams' queues.
    pub shared: bool,
    /// The triggers fire whoever writes, which only the table's owner may ask for.
    pub always: bool,
}

/// Settings under which a row becomes text: as the sessions that read it have them, whatever the writer's are.
const PINNED: &str = "SET search_path = pg_catalog, pg_temp SET \"DateStyle\" = 'ISO, YMD' SET \"IntervalStyle\" = 'postgres' \
     SET \"TimeZone\" = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' \
     SET xmlbinary = 'base64' SET quote_all_identifiers = off";

const BEHIND_VARIABLES: &str =
    "DECLARE again boolean; image text; ours bigint; below bigint; place bigint; size bigint := 64;";

/// Puts what was queued too early behind the change it follows.
///
/// A statement changes all its rows before the triggers of any of them fire. So a trigger that fires for one of its rows may change
/// another one again, and that is queued before our trigger has fired for the other one. Then the row after our change has an xmax, is
/// not there any more, and the chain of changes that begins with its image stands in the queue already: it gets new numbers. It is looked
/// for from the end, since it stands there: a LIMIT has the server read the index backwards.
fn behind(queue: &str, sequence: &str) -> String {
    format!(
        "IF NEW.xmax <> '0' THEN \
           again := true; \
           IF pg_catalog.has_table_privilege(TG_RELID, 'SELECT') THEN \
             EXECUTE pg_catalog.format('SELECT NOT EXISTS (SELECT FROM ONLY %s WHERE ctid = $1)', TG_RELID::pg_catalog.regclass) \
                INTO again USING NEW.ctid; \
           END IF; \
           IF again THEN \
             image := pg_catalog.format('%s', NEW); \
             ours := pg_catalog.currval('{sequence}'); \
             below := ours; \
             LOOP \
               SELECT max(w.seq) FILTER (WHERE w.old = image AND w.xid = pg_catalog.pg_current_xact_id()), min(w.seq) INTO place, below \
                 FROM (SELECT k.seq, k.xid, k.old FROM {queue} AS k WHERE k.seq < below ORDER BY k.seq DESC LIMIT size) AS w; \
               EXIT WHEN place IS NOT NULL OR below IS NULL; \
               size := size * 2; \
             END LOOP; \
             WHILE place IS NOT NULL LOOP \
               UPDATE {queue} AS k SET seq = pg_catalog.nextval('{sequence}') WHERE k.seq = place RETURNING k.new INTO image; \
               SELECT min(k.seq) INTO place FROM {queue} AS k \
                WHERE k.seq > place AND k.seq < ours AND k.xid = pg_catalog.pg_current_xact_id() AND k.old = image; \
             END LOOP; \
           END IF; \
         END IF;"
    )
}

/// The name of the queue of the table with this oid, in schema `repcloud`.
pub fn queue_name(table: Oid) -> String {
    format!("queue_{table}")
}

/// Makes everything, in order, for one transaction. `sql_name` is the table, quoted; of an unlogged table the queue is
/// unlogged as well: after a crash of the server both are empty. [`SHARED_SEQUENCE`] must be there where it is used.
pub fn create(table: Oid, sql_name: &str, how: QueueKind) -> Vec<String> {
    let queue = format!("repcloud.{}", queue_name(table));
    let sequence = if how.shared { "repcloud.queue_seq".to_owned() } else { format!("{queue}_seq") };
    let kind = if how.unlogged { "UNLOGGED TABLE" } else { "TABLE" };
    let insert = |columns: &str, values: &str| {
        format!(
            "INSERT INTO {queue} (seq, xid, op{columns}) VALUES (pg_catalog.nextval('{sequence}'), \
             pg_catalog.pg_current_xact_id(), {values});"
        )
    };
    // format: by the type's output function, whatever casts there are.
    let rows = format!(
        "{BEHIND_VARIABLES} BEGIN IF TG_OP = 'INSERT' THEN {} ELSIF TG_OP = 'UPDATE' THEN {} ELSE {} RETURN NULL; END IF; {} RETURN NULL; END",
        insert(", new", "'I', pg_catalog.format('%s', NEW)"),
        insert(", old, new", "'U', pg_catalog.format('%s', OLD), pg_catalog.format('%s', NEW)"),
        insert(", old", "'D', pg_catalog.format('%s', OLD)"),
        behind(&queue, &sequence),
    );
    let truncate = format!("BEGIN {} RETURN NULL; END", insert("", "'T'"));
    let mut all = vec![format!(
        "CREATE {kind} {queue} (seq bigint PRIMARY KEY, xid xid8 NOT NULL, op \"char\" NOT NULL, old text, new text) \
             WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
    )];
    if !how.shared {
        // Looked up by name when the function runs, and never cached in a session: rows of one key keep their order.
        all.insert(0, format!("CREATE SEQUENCE {sequence} CACHE 1"));
        all.push(format!("ALTER SEQUENCE {sequence} OWNED BY {queue}.seq"));
    }
    for (name, body) in [("row", &rows), ("truncate", &truncate)] {
        let function = format!("{queue}_{name}()");
        all.push(format!(
            "CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {PINNED} \
             AS $repcloud${body}$repcloud$"
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
    for trigger in [row, statement].into_iter().filter(|_| how.always) {
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
        // A trigger that only the table's owner may drop by name goes with its function, which is ours.
        all.push(format!("DROP FUNCTION IF EXISTS {queue}_{function}() CASCADE"));
    }
    all.push(format!("DROP TABLE IF EXISTS {queue}"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(unlogged: bool) -> QueueKind {
        QueueKind { unlogged, shared: false, always: true }
    }

    #[test]
    fn triggers_come_last_and_go_first() {
        let create = create(7, "public.t", kind(false));
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
        assert!(create(7, "t", kind(true))[1].starts_with("CREATE UNLOGGED TABLE repcloud.queue_7 "));
        assert!(create(7, "t", kind(false))[1].starts_with("CREATE TABLE repcloud.queue_7 "));
    }

    #[test]
    fn queues_of_streams_share_a_sequence_and_only_an_owner_makes_triggers_fire_always() {
        let all = create(7, "t", QueueKind { unlogged: false, shared: true, always: false });
        assert!(all.iter().all(|sql| !sql.contains("SEQUENCE") && !sql.contains("ENABLE ALWAYS")), "{all:?}");
        assert!(all.iter().any(|sql| sql.contains("nextval('repcloud.queue_seq')")), "{all:?}");
    }
}
