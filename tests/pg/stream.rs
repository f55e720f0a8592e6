//! The replication session and its stream.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgwire_replication::ReplicationEvent as Event;
use repcloud::model::Lsn;
use repcloud::pg::replication::{
    Frame, Positions, ReplicationClient, ReplicationStream, SlotRequest, Snapshot,
};
use repcloud::pg::{FailureClass, PgError, Session, SslMode};

use crate::cluster::{Cluster, give_away, run, until};

const LIMIT: Duration = Duration::from_secs(60);

fn slot(name: &str, plugin: &str) -> SlotRequest {
    SlotRequest {
        name: name.into(),
        plugin: plugin.into(),
        temporary: false,
        snapshot: Snapshot::Nothing,
        two_phase: false,
        failover: false,
    }
}

fn pgoutput() -> Vec<(String, String)> {
    [("proto_version", "1"), ("publication_names", "\"p\""), ("messages", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

async fn client(cluster: &Cluster) -> ReplicationClient {
    ReplicationClient::connect(&cluster.admin()).await.unwrap()
}

/// Frames until `commits` commits have come; answers keepalives.
async fn commits(stream: &mut ReplicationStream, commits: usize) -> Vec<(Lsn, Bytes)> {
    let mut frames = Vec::new();
    let mut seen = 0;
    while seen < commits {
        match tokio::time::timeout(LIMIT, stream.next()).await.expect("a frame in time").unwrap() {
            Frame::XLogData { start, end, data } => {
                assert_eq!(start, end);
                seen += usize::from(data.first() == Some(&b'C'));
                frames.push((start, data));
            }
            Frame::Keepalive { reply_requested: true, .. } => {
                stream.send_status(Positions::default(), false).await.unwrap();
            }
            Frame::Keepalive { .. } => {}
        }
    }
    frames
}

async fn lsn(session: &Session, sql: &str) -> Lsn {
    session.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

#[tokio::test]
async fn frames_arrive_and_positions_are_told_apart() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    session
        .batch_execute(
            "CREATE TABLE public.t (id int PRIMARY KEY, x text); CREATE PUBLICATION p FOR TABLE public.t",
        )
        .await
        .unwrap();
    let mut replication = client(&cluster).await;
    let identity = replication.identify_system().await.unwrap();
    let control =
        session.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]).await.unwrap();
    assert_eq!(identity.system_id, control.get::<_, String>(0));
    assert_eq!(identity.timeline, 1);
    let created = replication.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap();
    assert!(created.consistent_point >= identity.flushed && created.snapshot_name.is_none());
    let again = replication.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap_err();
    assert_eq!(again.sqlstate(), Some("42710"), "{again}");

    session
        .batch_execute("INSERT INTO public.t SELECT i, repeat('x', i) FROM generate_series(1, 1000) i")
        .await
        .unwrap();
    session.batch_execute("UPDATE public.t SET id = -id WHERE id <= 10").await.unwrap();
    let mut stream = replication.start_replication("s", created.consistent_point, &pgoutput()).await.unwrap();
    let frames = commits(&mut stream, 2).await;
    let kinds: String = frames.iter().map(|(_, data)| char::from(data[0])).collect();
    assert_eq!(kinds, format!("BR{}CB{}C", "I".repeat(1000), "U".repeat(10)));
    let positions: Vec<Lsn> = frames.iter().map(|(at, _)| *at).filter(|at| *at != Lsn(0)).collect();
    assert!(positions.is_sorted() && positions[0] >= created.consistent_point);
    assert_eq!(stream.try_next().unwrap().filter(|f| matches!(f, Frame::XLogData { .. })), None);

    // Three positions, each in its own column; only the flushed one moves the slot.
    let end = lsn(&session, "SELECT pg_current_wal_flush_lsn()::text").await;
    let told = Positions { received: end, flushed: Lsn(end.0 - 16), applied: Lsn(end.0 - 8) };
    stream.send_status(told, true).await.unwrap();
    let shown = async || {
        let sql = "SELECT write_lsn::text, flush_lsn::text, replay_lsn::text, confirmed_flush_lsn::text
                   FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid";
        let row = session.query_one(sql, &[]).await.unwrap();
        let at = |i| row.get::<_, Option<String>>(i).and_then(|text| text.parse::<Lsn>().ok());
        [at(0), at(1), at(2), at(3)] == [told.received, told.flushed, told.applied, told.flushed].map(Some)
    };
    until("the positions are shown", shown).await;
    // The reply that was asked for.
    let reply = tokio::time::timeout(LIMIT, stream.next()).await.unwrap().unwrap();
    assert!(matches!(reply, Frame::Keepalive { .. }), "{reply:?}");

    // Ended in order: the slot is free, the session goes on.
    let mut replication = stream.finish().await.unwrap();
    let rows = replication.simple_query("SELECT active::text, NULL FROM pg_replication_slots").await.unwrap();
    assert_eq!(rows, [[Some("false".to_owned()), None]]);
    replication.drop_slot("s", true).await.unwrap();
    let gone = replication.drop_slot("s", false).await.unwrap_err();
    assert_eq!(gone.sqlstate(), Some("42704"), "{gone}");
    replication.close().await.unwrap();
}

#[tokio::test]
async fn an_exported_snapshot_sees_what_was_before_the_slot() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut session = cluster.session().await;
    session.batch_execute("CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)").await.unwrap();
    let mut replication = client(&cluster).await;
    let request = SlotRequest { snapshot: Snapshot::Export, temporary: true, ..slot("s", "test_decoding") };
    let snapshot = replication.create_slot(&request, LIMIT).await.unwrap().snapshot_name.unwrap();
    session.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
    let old = session.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
    let old = old.start().await.unwrap();
    old.batch_execute(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await.unwrap();
    let count: i64 = old.query_one("SELECT count(*) FROM public.t", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    drop(old);
    // Any plugin, with options of its own.
    let options =
        [("include-xids".to_owned(), "off".to_owned()), ("skip-empty-xacts".to_owned(), "on".to_owned())];
    let mut stream = replication.start_replication("s", Lsn(0), &options).await.unwrap();
    let mut texts = Vec::new();
    while texts.len() < 3 {
        if let Frame::XLogData { data, .. } =
            tokio::time::timeout(LIMIT, stream.next()).await.unwrap().unwrap()
        {
            texts.push(String::from_utf8(data.to_vec()).unwrap());
        }
    }
    assert_eq!(texts, ["BEGIN", "table public.t: INSERT: id[integer]:2", "COMMIT"]);
}

#[tokio::test]
async fn slot_creation_has_a_limit_and_leaves_nothing() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    session
        .batch_execute("CREATE TABLE public.t (id int); BEGIN; INSERT INTO public.t VALUES (1)")
        .await
        .unwrap();
    let mut replication = client(&cluster).await;
    let error =
        replication.create_slot(&slot("s", "pgoutput"), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, PgError::Timeout { .. }), "{error}");
    assert!(error.to_string().starts_with("creating replication slot s took longer"), "{error}");
    // The session is usable, and no slot is left.
    let rows = replication.simple_query("SELECT count(*) FROM pg_replication_slots").await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("0"));
    session.batch_execute("COMMIT").await.unwrap();
    replication.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap();
    // A command that was dropped half way leaves a session that says so.
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), replication.simple_query("SELECT pg_sleep(600)"));
    assert!(dropped.await.is_err());
    let error = replication.identify_system().await.unwrap_err();
    assert!(error.to_string().contains("left unfinished"), "{error}");
    replication.canceller().cancel().await.unwrap();
}

#[tokio::test]
async fn a_slot_in_use_is_told_apart() {
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    session.batch_execute("CREATE PUBLICATION p").await.unwrap();
    let mut first = client(&cluster).await;
    first.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap();
    let stream = first.start_replication("s", Lsn(0), &pgoutput()).await.unwrap();
    let error = client(&cluster).await.start_replication("s", Lsn(0), &pgoutput()).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate()), (FailureClass::InUse, Some("55006")), "{error}");
    let error = client(&cluster).await.start_replication("absent", Lsn(0), &pgoutput()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42704"), "{error}");
    // A dropped stream frees the slot as soon as the server notices.
    drop(stream);
    until("the slot is free", async || {
        let sql = "SELECT NOT active FROM pg_replication_slots";
        session.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    // An option that the plugin does not know, and an error in the middle of the stream.
    let wrong = [("colour".to_owned(), "blue".to_owned())];
    let error = client(&cluster).await.start_replication("s", Lsn(0), &wrong).await.unwrap_err();
    assert!(error.to_string().contains("unrecognized pgoutput option: colour"), "{error}");
    let mut stream = client(&cluster).await.start_replication("s", Lsn(0), &pgoutput()).await.unwrap();
    session.execute("SELECT pg_terminate_backend($1)", &[&stream.backend_pid()]).await.unwrap();
    let error = loop {
        match tokio::time::timeout(LIMIT, stream.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.class(), error.sqlstate()), (FailureClass::Transient, Some("57P01")), "{error}");
}

#[tokio::test]
async fn status_updates_keep_a_stalled_stream_alive() {
    let cluster =
        Cluster::start(&["wal_sender_timeout = '2s'", "logical_decoding_work_mem = '64kB'"], &[]).await;
    let session = cluster.session().await;
    session
        .batch_execute("CREATE TABLE public.t (id int, x text); CREATE PUBLICATION p FOR TABLE public.t")
        .await
        .unwrap();
    let mut replication = client(&cluster).await;
    replication.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap();
    // More than the sockets' buffers hold: the walsender is stuck in sending.
    session
        .batch_execute("INSERT INTO public.t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
        .await
        .unwrap();
    let mut stream = replication.start_replication("s", Lsn(0), &pgoutput()).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        stream.send_status(Positions::default(), false).await.unwrap();
        // Not a wait for something: this is the stall, in which nobody reads.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let frames = commits(&mut stream, 1).await;
    assert_eq!(frames.iter().filter(|(_, data)| data[0] == b'I').count(), 20_000);

    // Nobody answers: the server gives up, and we are told.
    until("the server has given up", async || cluster.log().contains("due to replication timeout")).await;
    let error = loop {
        match tokio::time::timeout(LIMIT, stream.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), FailureClass::Transient, "{error}");
}

/// Frames from nothing to 10 MB, over a Unix socket and through TLS; read by `next` and `try_next` in turns, and
/// with `next` dropped again and again.
#[tokio::test]
async fn frames_of_every_size_come_whole() {
    let dir = tempfile::Builder::new().prefix("repcloud-pg-").tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let arguments =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
    run(Command::new("openssl").args(arguments.split(' ')).args(["-keyout", &file("k"), "-out", &file("c")]));
    let config = [
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", file("c")),
        format!("ssl_key_file = '{}'", file("k")),
    ];
    let hba = ["hostssl all all 127.0.0.1/32 trust"];
    let cluster = Cluster::start_in(dir, &config.each_ref().map(String::as_str), &hba).await;
    let session = cluster.session().await;
    session.batch_execute("CREATE TABLE public.t (id int, x text); ALTER TABLE public.t ALTER x SET STORAGE EXTERNAL; CREATE PUBLICATION p FOR TABLE public.t").await.unwrap();
    let mut replication = client(&cluster).await;
    for name in ["a", "b"] {
        replication.create_slot(&slot(name, "pgoutput"), LIMIT).await.unwrap();
    }
    let sizes = [0, 1, 10_000_000, 7, 300_000, 262_144, 262_100, 0, 5_000_000];
    for size in sizes {
        let sql = format!("INSERT INTO public.t VALUES (1, repeat('z', {size}))");
        session.batch_execute(&sql).await.unwrap();
    }
    session
        .batch_execute("INSERT INTO public.t SELECT 1, repeat('z', i) FROM generate_series(1, 5000) i")
        .await
        .unwrap();
    let expected: Vec<usize> = sizes.into_iter().chain(1..=5000).collect();
    for (slot, options) in
        [("a", cluster.admin()), ("b", cluster.tcp("localhost", "postgres", SslMode::Require))]
    {
        let replication = ReplicationClient::connect(&options).await.unwrap();
        assert_eq!(replication.is_tls(), slot == "b");
        let mut stream = replication.start_replication(slot, Lsn(0), &pgoutput()).await.unwrap();
        let mut lengths = Vec::new();
        while lengths.len() < expected.len() {
            let frame = match stream.try_next().unwrap() {
                Some(frame) => frame,
                None => tokio::select! {
                    biased;
                    // Drops `next` half way, most of the time.
                    () = tokio::task::yield_now() => continue,
                    frame = stream.next() => frame.unwrap(),
                },
            };
            if let Frame::XLogData { data, .. } = frame
                && data[0] == b'I'
            {
                // 'I', relation, 'N', count, 't', length, "1", 't', length, text.
                assert!(data[19..].iter().all(|byte| *byte == b'z'));
                lengths.push(data.len() - 19);
            }
        }
        assert_eq!(lengths, expected);
        stream.finish().await.unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn a_promotion_leaves_a_timeline_history() {
    let mut cluster = Cluster::start(&["hot_standby = on"], &[]).await;
    assert!(client(&cluster).await.timeline_history(1).await.unwrap().switches.is_empty());
    std::fs::write(cluster.path("data/standby.signal"), "").unwrap();
    give_away(&cluster.path("data/standby.signal"));
    cluster.restart().await;
    let session = cluster.session().await;
    session.batch_execute("SELECT pg_promote()").await.unwrap();
    let mut replication = client(&cluster).await;
    let mut identity = replication.identify_system().await.unwrap();
    until("the promotion is done", async || {
        identity = replication.identify_system().await.unwrap();
        identity.timeline == 2
    })
    .await;
    let history = replication.timeline_history(2).await.unwrap();
    assert_eq!(history.switches.len(), 1);
    assert_eq!(history.switches[0].timeline, 1);
    assert!(history.switches[0].at > Lsn(0) && history.switches[0].at <= identity.flushed);
    assert!(history.raw.starts_with(b"1\t"));
}

#[tokio::test]
async fn the_server_shuts_down_under_a_stream() {
    let cluster = Cluster::start(&[], &[]).await;
    cluster.session().await.batch_execute("CREATE PUBLICATION p").await.unwrap();
    let mut replication = client(&cluster).await;
    replication.create_slot(&slot("s", "pgoutput"), LIMIT).await.unwrap();
    let mut stream = replication.start_replication("s", Lsn(0), &pgoutput()).await.unwrap();
    drop(cluster);
    let error = loop {
        match tokio::time::timeout(LIMIT, stream.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), FailureClass::Transient, "{error}");
}

/// The other reader's event is our frame; says whether it was compared byte for byte.
fn agrees(event: &Event, at: Lsn, data: &[u8]) -> bool {
    let number = |at: usize| u64::from_be_bytes(data[at..at + 8].try_into().unwrap());
    match event {
        Event::XLogData { wal_start, wal_end, data: theirs, .. } => {
            assert_eq!((wal_start.as_u64(), wal_end.as_u64()), (at.0, at.0));
            assert_eq!(data, theirs);
            return true;
        }
        Event::Begin { final_lsn, xid, commit_time_micros } => {
            assert_eq!((data[0], data.len()), (b'B', 21));
            assert_eq!(
                (number(1), number(9)),
                (final_lsn.as_u64(), u64::try_from(*commit_time_micros).unwrap())
            );
            assert_eq!(data[17..21], xid.to_be_bytes());
        }
        Event::Commit { lsn, end_lsn, commit_time_micros } => {
            assert_eq!((data[0], data.len()), (b'C', 26));
            assert_eq!((number(2), number(10)), (lsn.as_u64(), end_lsn.as_u64()));
            assert_eq!(number(18), u64::try_from(*commit_time_micros).unwrap());
        }
        Event::Message { prefix, content, lsn, .. } => {
            assert_eq!((data[0], number(2)), (b'M', lsn.as_u64()));
            assert_eq!((prefix.as_str(), content.as_ref()), ("prefix", b"content".as_ref()));
            assert!(data.ends_with(b"content"));
        }
        event => panic!("{event:?}"),
    }
    false
}

/// pgwire-replication reads a second slot made at the same moment: the same frames, byte for byte where it shows
/// them (it parses Begin, Commit and Message itself).
#[tokio::test]
async fn a_second_opinion_on_the_frames() {
    use pgwire_replication::{ReplicationClient as Other, ReplicationConfig};
    let cluster = Cluster::start(&[], &[]).await;
    let session = cluster.session().await;
    session
        .batch_execute(
            "CREATE TABLE public.t (id int PRIMARY KEY, x text, big text);
             CREATE TABLE public.\"Full\" (a jsonb, b numeric); ALTER TABLE public.\"Full\" REPLICA IDENTITY FULL;
             ALTER TABLE public.t ALTER big SET STORAGE EXTERNAL;
             CREATE TYPE public.mood AS ENUM ('a', 'b'); CREATE TABLE public.m (m public.mood);
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let mut replication = client(&cluster).await;
    replication.create_slot(&slot("ours", "pgoutput"), LIMIT).await.unwrap();
    replication.create_slot(&slot("theirs", "pgoutput"), LIMIT).await.unwrap();
    let workload = [
        "INSERT INTO public.t SELECT i, NULL, repeat('y', 20 * i) FROM generate_series(1, 500) i",
        "UPDATE public.t SET x = 'é' WHERE id % 3 = 0",
        "UPDATE public.t SET id = id + 10000 WHERE id % 5 = 0",
        "INSERT INTO public.\"Full\" VALUES ('{\"a\": [1, null]}', 'NaN'), (NULL, 1e100)",
        "UPDATE public.\"Full\" SET b = b + 1",
        "SELECT pg_logical_emit_message(true, 'prefix', 'content')",
        "INSERT INTO public.m VALUES ('b'); DELETE FROM public.t WHERE id % 7 = 0; TRUNCATE public.m, public.t",
    ];
    for sql in workload {
        session.batch_execute(sql).await.unwrap();
    }
    let mut stream = replication.start_replication("ours", Lsn(0), &pgoutput()).await.unwrap();
    let ours = commits(&mut stream, workload.len()).await;

    let host = cluster.path("").display().to_string();
    let config =
        ReplicationConfig::new(host.trim_end_matches('/'), "postgres", "", "postgres", "theirs", "p")
            .with_port(cluster.port);
    let mut other = Other::connect(config).await.unwrap();
    let mut compared = 0;
    let mut ours = ours.into_iter();
    while ours.len() > 0 {
        let event = tokio::time::timeout(LIMIT, other.recv()).await.unwrap().unwrap().unwrap();
        if matches!(event, Event::KeepAlive { .. }) {
            continue;
        }
        let (at, data) = ours.next().unwrap();
        compared += usize::from(agrees(&event, at, &data));
    }
    // 500 inserts, 166 updates, 100 key changes, 2 + 2 of the FULL table, one insert and the deletes; relations.
    assert!(compared > 800, "{compared}");
    other.stop();
    other.shutdown().await.unwrap();
}
