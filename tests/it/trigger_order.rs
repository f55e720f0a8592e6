//! The order of queued changes where triggers of the application change rows again, which a statement has changed before.

use crate::support::cluster::Pair;
use crate::support::db::assert_same;
use crate::support::stream::LIMIT;
use crate::triggers::{by_triggers, stream};

const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.list\", \"public.plain\"]";

/// A trigger for one row changes rows whose own triggers have not fired yet: those that the same statement changes.
const SCHEMA: &str = "CREATE TABLE public.list (id int PRIMARY KEY, place int, note text, gone boolean DEFAULT false);
    CREATE TABLE public.plain (id int, place int, note text, gone boolean DEFAULT false);
    CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        IF pg_trigger_depth() > 2 OR NEW.note IS NULL THEN RETURN NULL; END IF;
        IF NEW.note = 'move' THEN
            EXECUTE format('UPDATE %s SET place = place + 100 WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
            EXECUTE format('UPDATE %s SET place = place * 2 WHERE id IN ($1, $2)', TG_RELID::regclass) USING NEW.id + 1, NEW.id;
        ELSIF NEW.note = 'sub' THEN
            BEGIN EXECUTE format('UPDATE %s SET place = -1 WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
            EXCEPTION WHEN division_by_zero THEN NULL; END;
        ELSIF NEW.note = 'undone' THEN
            BEGIN EXECUTE format('UPDATE %s SET place = 1 / (place - place) WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
            EXCEPTION WHEN division_by_zero THEN NULL; END;
        ELSIF NEW.note = 'remove' THEN
            EXECUTE format('DELETE FROM %s WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
        ELSIF NEW.note = 'forth and back' THEN
            EXECUTE format('UPDATE %s SET gone = true WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
            EXECUTE format('UPDATE %s SET gone = false WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
            EXECUTE format('UPDATE %s SET place = place + 7 WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
        ELSIF NEW.note = 'key' THEN
            EXECUTE format('UPDATE %s SET id = id + 1000 WHERE id = $1', TG_RELID::regclass) USING NEW.id + 1;
        END IF;
        RETURN NULL;
    END$$;
    CREATE TRIGGER moves AFTER INSERT OR UPDATE ON list FOR EACH ROW EXECUTE FUNCTION moves();
    CREATE TRIGGER moves AFTER INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION moves();
    INSERT INTO list SELECT i, i FROM generate_series(1, 10) i; INSERT INTO plain SELECT i, i FROM generate_series(1, 10) i";

#[tokio::test]
async fn rows_that_a_trigger_changes_before_their_own_has_fired_end_as_on_the_source() {
    let stream = stream(Pair::start(), SCHEMA, &[ENTRY]).await;
    stream.catch_up();
    for note in ["move", "sub", "undone", "remove", "key"] {
        for table in ["list", "plain"] {
            // Several statements in one transaction, and one of many rows.
            let sql = format!(
                "BEGIN; UPDATE {table} SET place = place + 1, note = '{note}' WHERE id < 8;
                 UPDATE {table} SET place = place + 1, note = '{note}' WHERE id > 3; COMMIT;
                 INSERT INTO {table} SELECT i, i, '{note}' FROM generate_series(11, 16) i"
            );
            stream.source.exec(&sql).await;
        }
        stream.catch_up();
        for table in ["list", "plain"] {
            assert_same(&stream.source, &stream.target, table).await;
            stream
                .source
                .exec(&format!(
                    "DELETE FROM {table}; INSERT INTO {table} SELECT i, i FROM generate_series(1, 10) i"
                ))
                .await;
        }
    }
    stream.source.exec("UPDATE list SET place = place + 1, note = 'forth and back' WHERE id < 8").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "list").await;
}

/// A trigger for one row removes another row of the statement, or moves it away, and makes its key anew.
#[tokio::test]
async fn a_key_that_a_trigger_makes_anew_ends_as_on_the_source() {
    let function = |name: &str, body: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF pg_trigger_depth() < 2 THEN {body} END IF; RETURN NULL; END$$;"
        )
    };
    let made = |table: &str, of: &str, body: &str| {
        format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v text); INSERT INTO {table} SELECT i, 'first' FROM generate_series(1, 6) i; {}
             CREATE TRIGGER zz AFTER {of} ON {table} FOR EACH ROW EXECUTE FUNCTION on_{table}();",
            function(&format!("on_{table}"), body)
        )
    };
    let again = |table: &str| {
        format!(
            "DELETE FROM {table} WHERE id = NEW.id + 1; INSERT INTO {table} VALUES (NEW.id + 1, 'again');"
        )
    };
    let schema = [
        made(
            "gone",
            "DELETE",
            "IF OLD.id IN (1, 3) THEN INSERT INTO gone VALUES (OLD.id + 1, 'again'); END IF;",
        ),
        made("changed", "UPDATE", &again("changed")),
        made("come", "INSERT", &again("come")),
        made(
            "moved",
            "UPDATE",
            "IF NEW.id IN (1, 3, 5) THEN UPDATE moved SET id = id + 100 WHERE id = NEW.id + 1; INSERT INTO moved VALUES (NEW.id + 1, 'again'); END IF;",
        ),
    ];
    let entry = "mode = \"dml\"\ntables = [\"public.*\"]";
    let stream = stream(Pair::start(), &schema.join(" "), &[entry]).await;
    stream.catch_up();
    stream.source.exec("DELETE FROM gone").await;
    stream
        .source
        .exec("UPDATE changed SET v = 'changed'; UPDATE changed SET v = v || ' twice' WHERE id < 4")
        .await;
    stream.source.exec("INSERT INTO come SELECT i, 'come' FROM generate_series(11, 16) i").await;
    stream.source.exec("UPDATE moved SET v = 'changed'").await;
    stream.catch_up();
    for table in ["gone", "changed", "come", "moved"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    assert_eq!(stream.source.value("SELECT count(*) FROM gone WHERE v = 'again'").await, "2");
}

/// What it changes would stand in the queue before its cause, and a row that it makes again would be gone.
#[tokio::test]
async fn a_trigger_that_fires_before_ours_is_refused_by_name_also_when_it_comes_later() {
    let trigger = "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            IF OLD.note = 'stays' THEN INSERT INTO list VALUES (OLD.id, OLD.place + 1, 'stays'); END IF; RETURN NULL; END$$;
        CREATE TRIGGER \"!a\" AFTER DELETE ON list FOR EACH ROW EXECUTE FUNCTION again()";
    let mut stream = stream(Pair::start(), SCHEMA, &[ENTRY]).await;
    stream.source.exec(trigger).await;
    let refused = stream.try_catch_up().expect_code(3).stderr;
    let rename = "ALTER TRIGGER \"!a\" ON public.list RENAME TO \"t_!a\"";
    assert!(refused.contains("sorts before repcloud's") && refused.contains(rename), "{refused}");
    stream.source.exec(rename).await;
    stream.source.exec("INSERT INTO list VALUES (50, 1, 'stays')").await;
    stream.catch_up();
    stream.source.exec("DELETE FROM list").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "list").await;
    assert_eq!(stream.target.value("SELECT count(*) FROM list").await, "1");
    // A name that sorts first, while changes flow: what is queued may be in the wrong order.
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    crate::support::wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from"))
        .await;
    stream.source.exec("ALTER TRIGGER \"t_!a\" ON list RENAME TO \" first\"; DELETE FROM list").await;
    crate::support::wait::until("it is noticed", LIMIT, async || {
        let sql = "SELECT state FROM repcloud.table_state WHERE target_table = 'public.list'";
        stream.target.value(sql).await == "needs_copy"
            || !running.stderr().is_empty() && running.stderr().contains("sorts before")
    })
    .await;
    drop(running);
    by_triggers(&mut stream, &[ENTRY]);
    stream.try_catch_up().expect_code(3);
}
