//! New tables that cannot be prepared stand aside with the reason; the others go on.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream, configuration};

const SOURCE: &str = "
    CREATE COLLATION ours (provider = libc, locale = 'C');
    CREATE TABLE public.old (id int PRIMARY KEY, v text);
    CREATE TABLE public.late (id int PRIMARY KEY, v text);
    CREATE TABLE public.collated (id int PRIMARY KEY, v text COLLATE ours);
    CREATE TABLE public.full_there (id int PRIMARY KEY, v text);
    CREATE TABLE public.taken (id int CONSTRAINT the_key PRIMARY KEY, v text);
    CREATE TABLE public.strict (id int PRIMARY KEY, v text);
    INSERT INTO old SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO late SELECT i, 'first' FROM generate_series(1, 2000) i;
    INSERT INTO collated SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO full_there SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO taken SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO strict SELECT i, 'first' FROM generate_series(1, 20) i";
const TARGET: &str = "
    CREATE ROLE plain LOGIN;
    GRANT CREATE ON DATABASE app TO plain;
    GRANT CREATE, USAGE ON SCHEMA public TO plain;
    SET ROLE plain;
    CREATE TABLE public.full_there (id int PRIMARY KEY, v text);
    INSERT INTO full_there VALUES (1, 'somebody else''s');
    CREATE TABLE public.another (id int CONSTRAINT the_key PRIMARY KEY);
    CREATE TABLE public.strict (id int PRIMARY KEY, v text CONSTRAINT never CHECK (v <> 'first'));
    RESET ROLE";
const OLD: &str = "mode = \"dml\"\ntables = [\"public.old\"]";
const ALL: &str = "mode = \"dml\"\ntables = [\"public.*\"]";
const UNFIT: [&str; 3] = ["collated", "full_there", "strict"];

/// `writer`: the role on the target. One that may let foreign keys rest copies new tables beside the stream.
async fn new_tables_that_cannot_be_prepared(writer: &str) {
    let stream = Stream::new(SOURCE, TARGET, &[OLD]).await;
    let configure = |entry: &str| {
        let text = configuration(&stream.pair, &[entry]);
        let (prod, copy) = text.split_once("[connections.copy]").unwrap();
        let copy = copy.replace("user = \"postgres\"", &format!("user = \"{writer}\""));
        stream.program.write("config/default.toml", &format!("{prod}[connections.copy]{copy}"));
    };
    configure(OLD);
    stream.catch_up();
    configure(ALL);
    stream.source.exec("INSERT INTO old VALUES (100, 'x')").await;
    let left = stream.try_catch_up().expect_code(4);
    for table in UNFIT {
        assert!(left.stderr.contains(&format!("target table public.{table} needs another copy")), "{left:?}");
        let state = format!("SELECT state FROM repcloud.table_state WHERE target_table = 'public.{table}'");
        assert_eq!(stream.target.value(&state).await, "needs_copy");
    }
    for why in ["ours", "already holds rows", "the_key", "never"] {
        assert!(left.stderr.contains(why), "{why}: {left:?}");
    }
    assert_eq!(stream.target.value("SELECT v FROM full_there").await, "somebody else's");
    // Another table bears the name of its key, which gets another one.
    assert!(left.stderr.contains("the_key is made as taken_the_key"), "{left:?}");
    for table in ["old", "late", "taken"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    // `verify` compares what can be compared, and says what it is about the others.
    let verified = stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
    assert!(verified.stderr.contains("public.strict needs another copy"), "{verified:?}");
    assert!(verified.stderr.contains("target table public.collated does not exist"), "{verified:?}");
    assert!(verified.stdout.contains("public.late"), "{verified:?}");
    // They hold up nobody later either, and each comes back by the command that was named.
    stream.source.exec("UPDATE late SET v = 'second' WHERE id < 9; UPDATE strict SET v = 'second'").await;
    stream.try_catch_up().expect_code(4);
    assert_same(&stream.source, &stream.target, "late").await;
    stream
        .target
        .exec("CREATE COLLATION public.ours (provider = libc, locale = 'C'); DROP TABLE another")
        .await;
    for table in UNFIT {
        let table = format!("public.{table}");
        let reset = ["reset", "--source", "prod", "--table", &table, "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
    }
    stream.catch_up();
    for table in UNFIT {
        assert_same(&stream.source, &stream.target, table).await;
    }
}

#[tokio::test]
async fn new_tables_that_cannot_be_prepared_stand_aside() {
    new_tables_that_cannot_be_prepared("postgres").await;
}

#[tokio::test]
async fn new_tables_that_cannot_be_prepared_stand_aside_under_a_plain_role() {
    new_tables_that_cannot_be_prepared("plain").await;
}

#[tokio::test]
async fn a_first_copy_that_fails_in_one_table_does_not_stop_the_others() {
    let schema = "CREATE TABLE public.a (id int PRIMARY KEY, v text); CREATE TABLE public.b (id int PRIMARY KEY, v text); \
         INSERT INTO a SELECT i, 'first' FROM generate_series(1, 5000) i; INSERT INTO b SELECT * FROM a";
    let target = "CREATE TABLE public.a (id int PRIMARY KEY, v text CONSTRAINT never CHECK (v <> 'first'))";
    let stream =
        Stream::new(schema, target, &["mode = \"dml\"\ntables = [\"public.a\", \"public.b\"]"]).await;
    let left = stream.try_catch_up().expect_code(4);
    assert!(left.stderr.contains("target table public.a needs another copy"), "{left:?}");
    assert_same(&stream.source, &stream.target, "b").await;
    stream.target.exec("ALTER TABLE a DROP CONSTRAINT never").await;
    let reset = ["reset", "--source", "prod", "--table", "public.a", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "a").await;
}

#[tokio::test]
async fn a_generated_column_that_comes_later_is_told_and_a_failure_is_told_once() {
    let stream = Stream::new(
        "CREATE TABLE public.a (id int PRIMARY KEY)",
        "",
        &["mode = \"dml\"\ntables = [\"public.a\"]"],
    )
    .await;
    stream.catch_up();
    stream
        .source
        .exec("ALTER TABLE a ADD twice int GENERATED ALWAYS AS (id * 2) STORED; INSERT INTO a VALUES (1)")
        .await;
    let told = stream.catch_up();
    assert!(told.stderr.contains("column twice of source table public.a is generated"), "{told:?}");
    assert_eq!(stream.target.value("SELECT id FROM a").await, "1");
    let entry = "mode = \"dml\"\ntables = [\"public.a\", \"public.misspelt\"]";
    stream.program.write("config/default.toml", &configuration(&stream.pair, &[entry]));
    let failed = stream.try_catch_up().expect_code(3);
    assert_eq!(failed.stderr.matches("table public.misspelt").count(), 1, "{failed:?}");
}

/// Nothing was compared: that is no success.
#[tokio::test]
async fn a_stream_that_has_not_begun_is_not_verified() {
    let stream = Stream::new("CREATE TABLE public.a (id int PRIMARY KEY)", "", &[ALL]).await;
    let verified = stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
    assert!(verified.stderr.contains("none has been copied"), "{verified:?}");
}
