//! A table that is copied again: its key and its indexes come to be what the source has, whatever bore which name before.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;
use crate::triggers::by_triggers;

const TABLES: &str = "
    CREATE TABLE public.a (id int PRIMARY KEY, v text, w int CONSTRAINT a_w UNIQUE);
    CREATE TABLE public.b (id int PRIMARY KEY, v text, w int CONSTRAINT b_w UNIQUE);
    CREATE TABLE public.c (id int PRIMARY KEY, v text);
    CREATE INDEX a_v ON a (v) WHERE v IS NOT NULL;
    CREATE INDEX b_v ON b (lower(v));
    INSERT INTO a SELECT i, 'a', i FROM generate_series(1, 10) i;
    INSERT INTO b SELECT i, 'b', i + 100 FROM generate_series(5, 20) i;
    INSERT INTO c VALUES (1, 'c')";
const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.*\"]";
const TABLES_EXCHANGED: &str =
    "ALTER TABLE a RENAME TO t; ALTER TABLE b RENAME TO a; ALTER TABLE t RENAME TO b;";
const INDEXES_EXCHANGED: &str = "
    ALTER INDEX a_pkey RENAME TO t_pkey; ALTER INDEX b_pkey RENAME TO a_pkey; ALTER INDEX t_pkey RENAME TO b_pkey;
    ALTER INDEX a_v RENAME TO t_v; ALTER INDEX b_v RENAME TO a_v; ALTER INDEX t_v RENAME TO b_v;
    ALTER INDEX a_w RENAME TO t_w; ALTER INDEX b_w RENAME TO a_w; ALTER INDEX t_w RENAME TO b_w;";

async fn state(stream: &Stream, table: &str) -> String {
    let sql = format!("SELECT state FROM repcloud.table_state WHERE target_table = 'public.{table}'");
    stream.target.value(&sql).await
}

/// What the indexes of a table are, without their names, and how many bear each description.
async fn indexes(db: &crate::support::db::Db, table: &str) -> Vec<Vec<Option<String>>> {
    let sql = format!(
        "SELECT DISTINCT i.indisprimary, i.indisunique, regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '') \
           FROM pg_index i WHERE i.indrelid = 'public.{table}'::regclass ORDER BY 1, 2, 3"
    );
    db.query_text(&sql).await
}

async fn names(db: &crate::support::db::Db, table: &str) -> String {
    let sql = format!(
        "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
          WHERE i.indrelid = 'public.{table}'::regclass"
    );
    db.value(&sql).await
}

#[tokio::test]
async fn a_copy_of_tables_that_exchanged_their_names_makes_their_key_and_indexes() {
    for (capture, exchange) in [
        ("slot", TABLES_EXCHANGED.to_owned()),
        ("slot", format!("{TABLES_EXCHANGED} {INDEXES_EXCHANGED}")),
        ("slot", INDEXES_EXCHANGED.to_owned()),
        ("trigger", TABLES_EXCHANGED.to_owned()),
        ("trigger", format!("{TABLES_EXCHANGED} {INDEXES_EXCHANGED}")),
    ] {
        println!("{capture}: {exchange}");
        let mut stream = Stream::new(TABLES, "", &[ENTRY]).await;
        if capture == "trigger" {
            by_triggers(&mut stream, &[ENTRY]);
        }
        stream.catch_up();
        stream.source.exec(&format!("BEGIN; {exchange} COMMIT; UPDATE a SET v = 'x' WHERE id = 7")).await;
        stream.try_catch_up();
        let reset =
            ["reset", "--source", "prod", "--table", "public.a", "--table", "public.b", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        let ends = wait::value("both are copied, or given up", LIMIT, async || {
            let states = [state(&stream, "a").await, state(&stream, "b").await];
            (!states.iter().any(|s| s == "copying")).then_some(states)
        })
        .await;
        assert!(!ends.iter().any(|s| s == "needs_copy"), "{ends:?}: {}", running.stderr());
        wait::until("both stream", LIMIT, async || {
            state(&stream, "a").await == "streaming" && state(&stream, "b").await == "streaming"
        })
        .await;
        stream.source.exec("UPDATE a SET v = 'y' WHERE id = 8; DELETE FROM b WHERE id = 6").await;
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        stream.catch_up();
        for table in ["a", "b", "c"] {
            assert_same(&stream.source, &stream.target, table).await;
            let (wanted, there) =
                (indexes(&stream.source, table).await, indexes(&stream.target, table).await);
            for index in &wanted {
                assert!(there.contains(index), "{table} lacks {index:?}: {there:?}");
            }
        }
    }
}

/// As after a migration that built a table beside the old one: two target tables stand aside, and each is told what is the way on.
#[tokio::test]
async fn a_table_that_was_renamed_over_another_has_a_way_on_in_either_order() {
    for (capture, drop_first) in [("slot", true), ("slot", false), ("trigger", false)] {
        let mut stream = Stream::new(TABLES, "", &[ENTRY]).await;
        if capture == "trigger" {
            by_triggers(&mut stream, &[ENTRY]);
        }
        stream.catch_up();
        stream
            .source
            .exec("ALTER TABLE a RENAME TO old; ALTER TABLE b RENAME TO a; UPDATE a SET v = 'x' WHERE id = 7")
            .await;
        let told = stream.try_catch_up().expect_code(4);
        for way in ["repcloud drop-table public.b ", "repcloud reset --source prod --table public.a --recopy"]
        {
            assert!(told.stderr.contains(way), "{capture}: {way}: {told:?}");
        }
        let drop = || stream.program.run(&["drop-table", "public.b", "--yes"], LIMIT).expect_code(0);
        if drop_first {
            drop();
        }
        let reset = ["reset", "--source", "prod", "--table", "public.a", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        let copied = stream.try_catch_up();
        if !drop_first {
            // The other target table bears the names of the index and its own.
            assert!(copied.stderr.contains("b_v is made as a_b_v"), "{copied:?}");
            drop();
        }
        stream.catch_up();
        for table in ["a", "old", "c"] {
            assert_same(&stream.source, &stream.target, table).await;
            let (wanted, there) =
                (indexes(&stream.source, table).await, indexes(&stream.target, table).await);
            for index in &wanted {
                assert!(there.contains(index), "{capture}: {table} lacks {index:?}: {there:?}");
            }
        }
    }
}

/// The source's key and an index have other columns by now, under the names that they had.
#[tokio::test]
async fn a_copy_replaces_a_key_and_an_index_that_are_others_under_their_names() {
    let stream = Stream::new(TABLES, "", &[ENTRY]).await;
    stream.catch_up();
    stream.target.exec("CREATE INDEX of_theirs ON a (w, v)").await;
    stream
        .source
        .exec(
            "BEGIN; ALTER TABLE a DROP CONSTRAINT a_pkey, ALTER w SET NOT NULL; ALTER TABLE a ADD CONSTRAINT a_pkey PRIMARY KEY (w); \
             DROP INDEX a_v; CREATE INDEX a_v ON a (w, id); UPDATE a SET id = 1; COMMIT",
        )
        .await;
    let reset = ["reset", "--source", "prod", "--table", "public.a", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "a").await;
    let (wanted, there) = (indexes(&stream.source, "a").await, indexes(&stream.target, "a").await);
    assert!(wanted.iter().all(|index| there.contains(index)), "{wanted:?} {there:?}");
    assert_eq!(names(&stream.target, "a").await, "a_pkey a_v a_w of_theirs");
    // Nothing is left of what was tried out, and a second copy has nothing to do.
    stream.program.run(&reset, LIMIT).expect_code(0);
    let again = stream.catch_up();
    assert!(!again.stderr.contains("is dropped") && !again.stderr.contains("is made as"), "{again:?}");
    assert_eq!(
        stream.target.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'repcloud_probe%'").await,
        "0"
    );
    assert_eq!(names(&stream.target, "a").await, "a_pkey a_v a_w of_theirs");
}
