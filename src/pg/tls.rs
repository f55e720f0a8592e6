//! TLS as libpq understands it: which certificates to trust, which to show, and the channel binding.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::pg::error::PgError;
use crate::pg::options::{ConnectOptions, SslMode};
use crate::pg::tls_verify::{RootVerifier, Roots, Unverified};

/// What a TLS handshake needs; made once per connection attempt.
#[derive(Clone)]
pub(crate) struct TlsSetup {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Reads the certificate files (off the async threads) and builds the configuration.
pub(crate) async fn setup(options: &ConnectOptions) -> Result<TlsSetup, PgError> {
    let options = options.clone();
    match tokio::task::spawn_blocking(move || build(&options)).await {
        Ok(result) => result,
        Err(error) => Err(PgError::io("reading the TLS certificates", io::Error::other(error))),
    }
}

fn build(options: &ConnectOptions) -> Result<TlsSetup, PgError> {
    let name = ServerName::try_from(options.host.clone()).map_err(|_| {
        PgError::config(format!("host \"{}\" is not a name that TLS can use; check it", options.host))
    })?;
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match roots(options)? {
        Some(roots) => Arc::new(RootVerifier::new(
            roots,
            provider.signature_verification_algorithms,
            (options.sslmode == SslMode::VerifyFull).then(|| options.host.clone()),
        )),
        None => Arc::new(Unverified::new(provider.signature_verification_algorithms)),
    };
    let builder = with_versions(provider)?.dangerous().with_custom_certificate_verifier(verifier);
    let config = match client_certificate(options)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| PgError::config(format!("sslcert and sslkey do not work together: {error}")))?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsSetup { config: Arc::new(config), name })
}

fn with_versions(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PgError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PgError::config(format!("TLS is not available: {error}")))
}

/// The roots to verify against; `None`: do not verify. As in libpq, a root file that exists is used in every
/// mode: with it, `require` behaves as `verify-ca`.
fn roots(options: &ConnectOptions) -> Result<Option<Roots>, PgError> {
    match &options.sslrootcert {
        Some(path) if path.as_os_str() == "system" => {
            if options.sslmode != SslMode::VerifyFull {
                return Err(PgError::config(format!(
                    "sslrootcert = \"system\" needs sslmode = \"verify-full\", not \"{}\": anybody can have a \
                     certificate of a public authority",
                    options.sslmode
                )));
            }
            system_roots().map(Some)
        }
        Some(path) => file_roots(path).map(Some),
        None => match default_file(options, "root.crt") {
            Some(path) => file_roots(&path).map(Some),
            None if options.sslmode.must_verify() => system_roots().map(Some),
            None => Ok(None),
        },
    }
}

fn default_file(options: &ConnectOptions, name: &str) -> Option<PathBuf> {
    let path = options.home.as_ref()?.join(".postgresql").join(name);
    path.exists().then_some(path)
}

fn file_roots(path: &Path) -> Result<Roots, PgError> {
    let exact = certificates("sslrootcert", path)?;
    let mut store = RootCertStore::empty();
    let (added, _unusable) = store.add_parsable_certificates(exact.iter().cloned());
    if added == 0 {
        return Err(bad_file("sslrootcert", path, "no certificate in it can be read"));
    }
    Ok(Roots { store, exact })
}

fn system_roots() -> Result<Roots, PgError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _unusable) = store.add_parsable_certificates(loaded.certs);
    if added == 0 {
        return Err(PgError::config(
            "the operating system has no root certificates to verify the server with; set sslrootcert",
        ));
    }
    Ok(Roots { store, exact: Vec::new() })
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_file(option, path, pem_text(&error)))?;
    if list.is_empty() {
        return Err(bad_file(option, path, "it holds no PEM certificate"));
    }
    Ok(list)
}

/// In our words: a parser's text could repeat what it read.
fn pem_text(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file",
        pem::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => "we may not read it",
        pem::Error::Io(_) => "reading it failed",
        pem::Error::NoItemsFound => "it holds no such PEM section",
        _ => "it is not PEM",
    }
}

fn bad_file(option: &str, path: &Path, reason: &str) -> PgError {
    PgError::config(format!("{option} \"{}\" cannot be used: {reason}", path.display()))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(options: &ConnectOptions) -> Result<Option<Identity>, PgError> {
    let (cert, key) = match (&options.sslcert, &options.sslkey) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (None, key) => match default_file(options, "postgresql.crt") {
            None => return Ok(None),
            Some(cert) => {
                let key = key.clone().or_else(|| default_file(options, "postgresql.key"));
                (
                    cert,
                    key.ok_or_else(|| {
                        PgError::config("postgresql.crt is there but not its key; set sslkey")
                    })?,
                )
            }
        },
        (Some(_), None) => {
            let key = default_file(options, "postgresql.key");
            match (options.sslcert.clone(), key) {
                (Some(cert), Some(key)) => (cert, key),
                _ => return Err(PgError::config("sslcert is set but sslkey is not")),
            }
        }
    };
    check_key_permissions(&key)?;
    let chain = certificates("sslcert", &cert)?;
    let key_der = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        let encrypted = std::fs::read_to_string(&key).is_ok_and(|text| text.contains("ENCRYPTED"));
        let reason =
            if encrypted { "it is encrypted; store it without a passphrase" } else { pem_text(&error) };
        bad_file("sslkey", &key, reason)
    })?;
    Ok(Some((chain, key_der)))
}

/// libpq's rule: nobody else may read the key, except a group of a key that root owns.
fn check_key_permissions(path: &Path) -> Result<(), PgError> {
    let stat = rustix::fs::stat(path).map_err(|error| bad_file("sslkey", path, &error.to_string()))?;
    let forbidden = if stat.st_uid == 0 { 0o037 } else { 0o077 };
    if stat.st_mode & forbidden != 0 {
        return Err(bad_file(
            "sslkey",
            path,
            "others may read it; its permissions must be 0600 or less (0640 when root owns it)",
        ));
    }
    Ok(())
}

/// The reason of a failed handshake in a person's words, and what to do.
pub(crate) fn explain(error: &io::Error) -> (String, Option<&'static str>) {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return (format!("the connection broke: {error}"), None);
    };
    let (reason, hint) = match tls {
        Error::InvalidCertificate(Bad::UnknownIssuer) => (
            "the server's certificate does not come from an authority we trust",
            "set sslrootcert to the authority's certificate",
        ),
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => (
            "the server's certificate is for another host name",
            "use a host name that the certificate holds, or sslmode = \"verify-ca\"",
        ),
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            ("the server's certificate has expired", "renew it, and check the clocks")
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            ("the server's certificate is not valid yet", "check the clocks")
        }
        Error::InvalidCertificate(other) => {
            let hint = "if it is self-signed, set sslrootcert to this very certificate";
            return (format!("the server's certificate cannot be used: {other}"), Some(hint));
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            ("the server requires a client certificate", "set sslcert and sslkey")
        }
        Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::CertificateExpired,
        ) => (
            "the server refuses our client certificate",
            "check sslcert, sslkey and the server's ssl_ca_file",
        ),
        other => return (format!("the TLS handshake failed: {other}"), None),
    };
    (reason.to_owned(), Some(hint))
}

/// The `tls-server-end-point` channel binding (RFC 5929, 4.1): the server certificate's hash under its own
/// signature's hash function, SHA-256 instead of MD5 and SHA-1. `None` where the signature names no hash
/// function (Ed25519); PostgreSQL offers no binding for such a certificate either.
pub(crate) fn end_point_binding(certificate: &[u8]) -> Option<Vec<u8>> {
    use x509_cert::der::oid::db::rfc5912 as oid;
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.oid {
        oid::MD_5_WITH_RSA_ENCRYPTION
        | oid::SHA_1_WITH_RSA_ENCRYPTION
        | oid::SHA_256_WITH_RSA_ENCRYPTION
        | oid::ECDSA_WITH_SHA_256 => &::ring::digest::SHA256,
        oid::SHA_384_WITH_RSA_ENCRYPTION | oid::ECDSA_WITH_SHA_384 => &::ring::digest::SHA384,
        oid::SHA_512_WITH_RSA_ENCRYPTION | oid::ECDSA_WITH_SHA_512 => &::ring::digest::SHA512,
        _ => return None,
    };
    Some(::ring::digest::digest(algorithm, certificate).as_ref().to_vec())
}
