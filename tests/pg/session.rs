//! The SQL session: pinned settings, cancelling, its end, texts without values.

use std::time::Duration;

use repcloud::model::RetryAdvice;
use repcloud::pg::{FailureClass, PgError, failure};

use crate::cluster::{Cluster, until};

#[tokio::test]
async fn settings_are_pinned_whatever_the_role_says() {
    let cluster = Cluster::start(&["datestyle = 'SQL, DMY'", "statement_timeout = '1h'"], &[]).await;
    let setup = "ALTER ROLE postgres SET DateStyle = 'German';
                 ALTER ROLE postgres SET search_path = public;
                 ALTER ROLE postgres SET lock_timeout = '1s';
                 ALTER ROLE postgres SET idle_in_transaction_session_timeout = '1s';
                 ALTER ROLE postgres SET extra_float_digits = 0;
                 ALTER ROLE postgres SET TimeZone = 'Asia/Tokyo'";
    cluster.session().await.batch_execute(setup).await.unwrap();
    let session = cluster.session().await;
    session.batch_execute("RESET ALL").await.unwrap();
    let mut replication =
        repcloud::pg::replication::ReplicationClient::connect(&cluster.admin()).await.unwrap();
    for (name, value) in [
        ("DateStyle", "ISO, DMY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("lc_monetary", "C"),
        ("client_encoding", "UTF8"),
        ("search_path", "pg_catalog"),
        ("xmloption", "content"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("application_name", "repcloud"),
    ] {
        let row = session.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
        let rows = replication.simple_query(&format!("SELECT current_setting('{name}')")).await.unwrap();
        assert_eq!(rows[0][0].as_deref(), Some(value), "{name} of the replication session");
    }
    let row = session.query_one("SELECT current_setting('server_version_num')", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), session.server_version().to_string());
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_statement_is_cancelled() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    let observer = cluster.session().await;
    let sleeping = async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
        observer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    };
    let cancel = async {
        until("the statement runs", sleeping).await;
        session.cancel().await.unwrap();
    };
    let (result, ()) = tokio::join!(session.batch_execute("SELECT pg_sleep(600)"), cancel);
    assert_eq!(PgError::from(result.unwrap_err()).sqlstate(), Some("57014"));
    session.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_session_is_told() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let running = session.batch_execute("SELECT pg_sleep(600)");
    let other = cluster.session().await;
    let kill = async {
        let sql =
            "SELECT pg_terminate_backend($1) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        until("the backend is terminated", async || other.execute(sql, &[&pid]).await.unwrap() == 1).await;
    };
    let (result, ()) = tokio::join!(running, kill);
    let error = PgError::from(result.unwrap_err());
    assert_eq!((error.sqlstate(), error.advice()), (Some("57P01"), RetryAdvice::Reconnect));
    assert_eq!(session.ended().await.advice(), RetryAdvice::Reconnect);
    let after = PgError::from(session.batch_execute("SELECT 1").await.unwrap_err());
    assert!(matches!(after, PgError::Closed { .. }), "{after}");

    // Dropping a session ends it on the server too.
    let dropped = cluster.session().await;
    let pid: i32 = dropped.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    drop(dropped);
    until("the dropped session is gone", async || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
        other.query_opt(sql, &[&pid]).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn real_errors_are_told_without_values() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    let setup = "CREATE TABLE public.t (id int PRIMARY KEY, name varchar(5) NOT NULL CHECK (name <> 'sesame'),
                     other int REFERENCES public.t);
                 CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS
                     $$BEGIN RAISE EXCEPTION 'sesame %', NEW.id USING ERRCODE = '42501', HINT = 'sesame'; END$$;
                 CREATE TABLE public.guarded (id int);
                 CREATE TRIGGER t BEFORE INSERT ON public.guarded FOR EACH ROW EXECUTE FUNCTION public.f();
                 INSERT INTO public.t VALUES (424242, 'a')";
    session.batch_execute(setup).await.unwrap();
    for (sql, text, class) in [
        (
            "INSERT INTO public.t VALUES (424242, 'b')",
            "ERROR: unique_violation (table public.t, constraint t_pkey), SQLSTATE 23505",
            FailureClass::Conflict,
        ),
        (
            "INSERT INTO public.t VALUES (1, 'b', 424243)",
            "ERROR: foreign_key_violation (table public.t, constraint t_other_fkey), SQLSTATE 23503",
            FailureClass::Conflict,
        ),
        (
            "INSERT INTO public.t VALUES (1, NULL)",
            "ERROR: not_null_violation (table public.t, column name), SQLSTATE 23502",
            FailureClass::Rejected,
        ),
        (
            "INSERT INTO public.t VALUES ('sesame')",
            "ERROR: invalid_text_representation, SQLSTATE 22P02",
            FailureClass::Rejected,
        ),
        (
            "INSERT INTO public.t VALUES (1, 'sesames')",
            "ERROR: string_data_right_truncation, SQLSTATE 22001",
            FailureClass::Rejected,
        ),
        (
            "INSERT INTO public.guarded VALUES (424242)",
            "ERROR: insufficient_privilege, SQLSTATE 42501",
            FailureClass::Privilege,
        ),
        (
            "SELECT nothing FROM public.t",
            "ERROR: column \"nothing\" does not exist, SQLSTATE 42703",
            FailureClass::Rejected,
        ),
        (
            "SELECT 1 FROM public.absent",
            "ERROR: relation \"public.absent\" does not exist, SQLSTATE 42P01",
            FailureClass::Rejected,
        ),
    ] {
        let error = session.batch_execute(sql).await.unwrap_err();
        assert_eq!(failure::describe(&error), text);
        assert_eq!(failure::class_of(&error), class);
        let ours = PgError::from(error);
        assert_eq!(ours.class(), class);
        assert!(!ours.to_string().contains("sesame") && !ours.to_string().contains("4242"), "{ours}");
    }
    // A parameter that does not fit its type never leaves us; its value is not told either.
    let error = session.query("SELECT $1::int", &[&"sesame"]).await.unwrap_err();
    assert!(!failure::describe(&error).contains("sesame"));
    tokio::time::timeout(Duration::from_secs(60), session.close()).await.unwrap().unwrap();
}
