//! A server that demands each kind of connection, met by both kinds of session.

use std::path::Path;
use std::process::Command;

use repcloud::model::RetryAdvice;
use repcloud::pg::replication::ReplicationClient;
use repcloud::pg::{ConnectOptions, FailureClass, PgError, SslMode};
use secrecy::SecretString;

use crate::cluster::{Cluster, give_away, run, until};

/// Both kinds of session, which must agree; `Ok` tells whether TLS was used.
async fn both(options: &ConnectOptions) -> Result<bool, PgError> {
    let sql = repcloud::pg::connect(options).await;
    let replication = ReplicationClient::connect(options).await;
    match (sql, replication) {
        (Ok(session), Ok(mut client)) => {
            let row = session.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]);
            let tls: bool = row.await.unwrap().get(0);
            assert_eq!((session.is_tls(), client.is_tls()), (tls, tls));
            assert_eq!(client.identify_system().await.unwrap().database, "postgres");
            assert_eq!(client.server_version(), session.server_version());
            session.close().await.unwrap();
            client.close().await.unwrap();
            Ok(tls)
        }
        (Err(error), Err(other)) => {
            assert_eq!(error.to_string(), other.to_string());
            assert_eq!((error.class(), error.sqlstate()), (other.class(), other.sqlstate()));
            Err(error)
        }
        (sql, replication) => panic!("the two disagree: {sql:?}, {replication:?}"),
    }
}

async fn refused(options: &ConnectOptions, text: &str) {
    let error = both(options).await.expect_err(text);
    let message = error.to_string();
    assert!(message.contains(text), "{message}");
    assert!(
        message.starts_with("could not connect to ") || matches!(error, PgError::Config { .. }),
        "{message}"
    );
    assert!(!message.contains("sesame"), "{message}");
    assert_eq!(error.advice(), RetryAdvice::Stop, "{message}");
}

fn with_password(mut options: ConnectOptions, password: &str) -> ConnectOptions {
    options.password = Some(SecretString::from(password));
    options
}

const SETUP: &str = "
    CREATE ROLE u_ssl LOGIN REPLICATION; CREATE ROLE u_plain LOGIN REPLICATION;
    CREATE ROLE u_cert LOGIN REPLICATION; CREATE ROLE u_no LOGIN REPLICATION;
    CREATE ROLE u_scram LOGIN REPLICATION PASSWORD 'sesame';
    CREATE ROLE u_clear LOGIN REPLICATION PASSWORD 'sesame';
    SET password_encryption = 'md5'; CREATE ROLE u_md5 LOGIN REPLICATION PASSWORD 'sesame';";

const HBA: &[&str] = &[
    "hostssl all u_ssl 127.0.0.1/32 trust",
    "hostnossl all u_plain 127.0.0.1/32 trust",
    "hostssl all u_cert 127.0.0.1/32 cert",
    "host all u_scram 127.0.0.1/32 scram-sha-256",
    "host all u_md5 127.0.0.1/32 md5",
    "host all u_clear 127.0.0.1/32 password",
    "local all u_scram scram-sha-256",
    "local all u_clear password",
    "local all all peer",
];

fn openssl(dir: &Path, arguments: &str) {
    run(Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()));
}

/// An authority, a server's certificate for `localhost`, clients' certificates with keys in three formats.
fn make_certificates(dir: &Path) {
    const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other"] {
        openssl(dir, &format!("req -x509 {EC} -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.crt"));
    }
    std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    std::fs::write(dir.join("none"), "basicConstraints=CA:FALSE\n").unwrap();
    for (name, key, subject, extensions) in [
        ("server", EC, "whatever", "san"),
        ("client", EC, "u_cert", "none"),
        ("rsa", "-newkey rsa:2048 -nodes", "u_cert", "none"),
    ] {
        openssl(dir, &format!("req {key} -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -sha384 \
                 -extfile {extensions} -out {name}.crt"
            ),
        );
    }
    openssl(dir, "ec -in client.key -out client-sec1.key");
    openssl(dir, "rsa -in rsa.key -traditional -out rsa-pkcs1.key");
    openssl(dir, "ec -in client.key -aes256 -passout pass:x -out client-secret.key");
    openssl(dir, &format!("req -x509 {EC} -days 2 -subj /CN=localhost -keyout self.key -out self.crt"));
    std::fs::copy(dir.join("server.key"), dir.join("current.key")).unwrap();
    std::fs::copy(dir.join("server.crt"), dir.join("current.crt")).unwrap();
}

async fn secure_cluster() -> Cluster {
    let dir = tempfile::Builder::new().prefix("repcloud-pg-").tempdir().unwrap();
    make_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let config = [
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", file("current.crt")),
        format!("ssl_key_file = '{}'", file("current.key")),
        format!("ssl_ca_file = '{}'", file("ca.crt")),
    ];
    let cluster = Cluster::start_in(dir, &config.each_ref().map(String::as_str), HBA).await;
    cluster.session().await.batch_execute(SETUP).await.unwrap();
    let me = run(Command::new("id").arg("-un"));
    if me != "postgres" {
        let role = format!("CREATE ROLE \"{me}\" LOGIN REPLICATION");
        cluster.session().await.batch_execute(&role).await.unwrap();
    }
    cluster
}

#[tokio::test]
async fn every_kind_of_login() {
    let cluster = secure_cluster().await;
    let tcp = |user, mode| cluster.tcp("127.0.0.1", user, mode);

    // A server that demands TLS, and one that refuses it.
    for mode in [SslMode::Allow, SslMode::Prefer, SslMode::Require] {
        assert!(both(&tcp("u_ssl", mode)).await.unwrap(), "{mode}");
    }
    refused(&tcp("u_ssl", SslMode::Disable), "no encryption; the server's pg_hba.conf must allow").await;
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        assert!(!both(&tcp("u_plain", mode)).await.unwrap(), "{mode}");
    }
    refused(&tcp("u_plain", SslMode::Require), "no pg_hba.conf entry for host").await;
    refused(&tcp("u_no", SslMode::Prefer), "with TLS: no pg_hba.conf entry").await;

    // SCRAM, bound to the channel over TLS.
    let scram = |mode| with_password(tcp("u_scram", mode), "sesame");
    assert!(!both(&scram(SslMode::Disable)).await.unwrap());
    let bound = ConnectOptions { require_channel_binding: true, ..scram(SslMode::Require) };
    assert!(both(&bound).await.unwrap());
    assert!(ReplicationClient::connect(&scram(SslMode::Require)).await.unwrap().is_channel_bound());
    assert!(!ReplicationClient::connect(&scram(SslMode::Disable)).await.unwrap().is_channel_bound());
    let unbound = ConnectOptions { require_channel_binding: true, ..scram(SslMode::Disable) };
    for error in [
        repcloud::pg::connect(&unbound).await.unwrap_err(),
        ReplicationClient::connect(&unbound).await.unwrap_err(),
    ] {
        assert_eq!(error.class(), FailureClass::Privilege, "{error}");
    }
    refused(&with_password(tcp("u_scram", SslMode::Require), "wrong"), "check the user and the password")
        .await;
    refused(&tcp("u_scram", SslMode::Require), "asks for a password and none is configured").await;

    // MD5, and clear text where nobody can listen.
    for mode in [SslMode::Disable, SslMode::Require] {
        both(&with_password(tcp("u_md5", mode), "sesame")).await.unwrap();
    }
    assert!(both(&with_password(tcp("u_clear", SslMode::Require), "sesame")).await.unwrap());
    refused(&with_password(tcp("u_clear", SslMode::Disable), "sesame"), "in clear text").await;

    // Unix sockets, where sslmode means nothing.
    for user in ["u_scram", "u_clear"] {
        let options = with_password(cluster.unix(user), "sesame");
        assert!(!both(&ConnectOptions { sslmode: SslMode::VerifyFull, ..options }).await.unwrap());
    }
    assert!(!both(&cluster.unix(&run(Command::new("id").arg("-un")))).await.unwrap());
    refused(&cluster.unix("u_ssl"), "Peer authentication failed").await;
}

#[tokio::test]
async fn certificates_are_judged_as_libpq_does() {
    let cluster = secure_cluster().await;
    let with_root = |host: &str, mode, root: &str| {
        let path = if root == "system" { root.into() } else { cluster.path(root) };
        ConnectOptions { sslrootcert: Some(path), ..cluster.tcp(host, "u_ssl", mode) }
    };
    // The certificate holds `localhost` only.
    assert!(both(&with_root("localhost", SslMode::VerifyFull, "ca.crt")).await.unwrap());
    assert!(both(&with_root("127.0.0.1", SslMode::VerifyCa, "ca.crt")).await.unwrap());
    assert!(both(&with_root("127.0.0.1", SslMode::Require, "ca.crt")).await.unwrap());
    refused(&with_root("127.0.0.1", SslMode::VerifyFull, "ca.crt"), "is for another host name").await;
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        refused(&with_root("localhost", mode, "other.crt"), "not come from an authority we trust").await;
    }
    // `prefer` goes on without TLS, which u_ssl may not.
    refused(&with_root("localhost", SslMode::Prefer, "other.crt"), "without TLS: no pg_hba.conf entry").await;
    refused(&with_root("localhost", SslMode::VerifyFull, "absent.crt"), "sslrootcert").await;
    refused(&with_root("localhost", SslMode::VerifyFull, "server.key"), "no PEM certificate").await;
    refused(&with_root("localhost", SslMode::Require, "system"), "needs sslmode").await;
    refused(&with_root("localhost", SslMode::VerifyFull, "system"), "").await;

    // The authority in <home>/.postgresql/root.crt.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    std::fs::copy(cluster.path("other.crt"), home.path().join(".postgresql/root.crt")).unwrap();
    let mut options = cluster.tcp("localhost", "u_ssl", SslMode::Require);
    assert!(both(&options).await.unwrap());
    options.home = Some(home.path().to_owned());
    refused(&options, "not come from an authority we trust").await;

    // The manual's recipe: a self-signed certificate with a common name only is the root itself.
    for part in ["key", "crt"] {
        std::fs::copy(cluster.path(&format!("self.{part}")), cluster.path(&format!("current.{part}")))
            .unwrap();
        give_away(&cluster.path(&format!("current.{part}")));
    }
    cluster.session().await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let own = with_root("localhost", SslMode::VerifyFull, "self.crt");
    until("the server shows its new certificate", async || repcloud::pg::connect(&own).await.is_ok()).await;
    assert!(both(&own).await.unwrap());
    refused(&with_root("127.0.0.1", SslMode::VerifyFull, "self.crt"), "is for another host name").await;
    refused(&with_root("localhost", SslMode::VerifyCa, "ca.crt"), "certificate cannot be used").await;
}

#[tokio::test]
async fn client_certificates() {
    let cluster = secure_cluster().await;
    let with_key = |cert: &str, key: &str| ConnectOptions {
        sslcert: Some(cluster.path(cert)),
        sslkey: Some(cluster.path(key)),
        ..cluster.tcp("localhost", "u_cert", SslMode::Require)
    };
    let protect = |name: &str, mode: &str| {
        run(Command::new("chmod").arg(mode).arg(cluster.path(name)));
    };
    for (cert, key) in [
        ("client.crt", "client.key"),
        ("client.crt", "client-sec1.key"),
        ("rsa.crt", "rsa.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
    ] {
        protect(key, "0600");
        assert!(both(&with_key(cert, key)).await.unwrap(), "{key}");
    }
    refused(&cluster.tcp("localhost", "u_cert", SslMode::Require), "set sslcert and sslkey").await;
    refused(&with_key("client.crt", "rsa.key"), "").await;
    refused(&with_key("client.crt", "absent.key"), "sslkey").await;
    protect("client-secret.key", "0600");
    refused(&with_key("client.crt", "client-secret.key"), "it is encrypted").await;
    let mut half = with_key("client.crt", "client.key");
    half.sslkey = None;
    refused(&half, "sslkey is not").await;
    protect("client.key", "0644");
    refused(&with_key("client.crt", "client.key"), "others may read it").await;
    // Somebody else's certificate.
    protect("other.key", "0600");
    refused(&with_key("other.crt", "other.key"), "client certificate").await;
}

#[tokio::test]
async fn a_server_without_tls_and_a_missing_server() {
    let cluster = Cluster::start(&[], &["host all all 127.0.0.1/32 trust"]).await;
    for mode in [SslMode::Allow, SslMode::Prefer] {
        assert!(!both(&cluster.tcp("127.0.0.1", "postgres", mode)).await.unwrap(), "{mode}");
    }
    for mode in [SslMode::Require, SslMode::VerifyCa] {
        let mut options = cluster.tcp("127.0.0.1", "postgres", mode);
        options.sslrootcert = None;
        refused(&options, "the server does not accept TLS; set sslmode").await;
    }
    let mut options = cluster.tcp("127.0.0.1", "postgres", SslMode::Disable);
    options.database = "absent".into();
    refused(&options, "check the name of the database").await;
    let port = cluster.port;
    let socket = cluster.admin();
    drop(cluster);
    let gone = ConnectOptions::new("127.0.0.1", port, "postgres", "postgres");
    let error = both(&gone).await.unwrap_err();
    assert_eq!(error.advice(), RetryAdvice::Reconnect);
    assert!(error.to_string().starts_with(&format!(
        "could not connect to \"127.0.0.1\" port {port} as \"postgres\": Connection refused"
    )));
    assert!(both(&socket).await.unwrap_err().to_string().contains("no such socket"));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for sslmode in [SslMode::Disable, SslMode::Require] {
        let options = ConnectOptions {
            sslmode,
            connect_timeout: std::time::Duration::from_millis(100),
            ..ConnectOptions::new("127.0.0.1", port, "u", "d")
        };
        let error = both(&options).await.unwrap_err();
        assert!(matches!(error, PgError::Timeout { .. }), "{error}");
        assert_eq!(error.advice(), RetryAdvice::Reconnect);
    }
}
