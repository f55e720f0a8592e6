//! Whether a server's certificate is for the host we asked for, by libpq's rules. Pure.

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519;
use x509_cert::der::{Any, Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The certificate's alternative names decide; a certificate that has none for hosts is judged by its common
/// name, as PostgreSQL's own recipe for a self-signed certificate makes it.
pub(crate) fn verify(
    der: &CertificateDer<'_>,
    parsed: &ParsedCertificate<'_>,
    name: &ServerName<'_>,
    host: &str,
) -> Result<(), Error> {
    let certificate = Certificate::from_der(der).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    if has_host_names(&certificate) {
        return verify_server_name(parsed, name);
    }
    match common_name(&certificate) {
        Some(pattern) if matches(&pattern, host) => Ok(()),
        _ => Err(CertificateError::NotValidForName.into()),
    }
}

fn has_host_names(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(None) => false,
        Ok(Some((_, names))) => {
            names.0.iter().any(|n| matches!(n, GeneralName::DnsName(_) | GeneralName::IpAddress(_)))
        }
        // Damaged names never loosen the check.
        Err(_) => true,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let subject = &certificate.tbs_certificate.subject;
    let attribute =
        subject.0.iter().flat_map(|part| part.0.iter()).rfind(|a| a.oid == rfc4519::COMMON_NAME)?;
    text(&attribute.value)
}

fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|s| s.as_str().to_owned()),
        Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().ok().map(|s| s.as_str().to_owned())
        }
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|s| s.as_str().to_owned()),
        _ => None,
    }
}

/// libpq's comparison: letter case aside; `*.` at the beginning stands for exactly one label.
fn matches(pattern: &str, host: &str) -> bool {
    // A NUL inside a name has been used to fool checks.
    if pattern.is_empty() || pattern.contains('\0') {
        return false;
    }
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && domain.contains('.') && rest.eq_ignore_ascii_case(domain)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn compares_as_libpq_does() {
        for (pattern, host, same) in [
            ("db.example", "DB.example", true),
            ("db.example", "db.example.org", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("*", "example", false),
            ("", "", false),
            ("a\0b", "a\0b", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(matches(pattern, host), same, "{pattern} {host}");
        }
    }
}
