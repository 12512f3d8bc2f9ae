//! The little the hub needs to know of an X.509 certificate (RFC 5280 §4.1): until when it is good,
//! and the common name of its subject. Nothing here is believed of a certificate that rustls has
//! not verified.

use jiff::Timestamp;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) not_after: Timestamp,
    /// `CN` of the subject, the last one where there are several.
    pub(super) common_name: Option<String>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16]; // UTF8String, PrintableString, IA5String

/// What the DER in `bytes` says; none when it is no certificate.
pub(super) fn read(bytes: &[u8]) -> Option<Certificate> {
    let (certificate, _) = expect(SEQUENCE, bytes)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, rest)) = expect(VERSION, fields) {
        fields = rest;
    }
    for _ in ["serial number", "signature algorithm", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (validity, rest) = expect(SEQUENCE, fields)?;
    let (_, _, after) = element(validity)?;
    let (kind, time, _) = element(after)?;
    let (subject, _) = expect(SEQUENCE, rest)?;
    Some(Certificate {
        not_after: instant(kind, time)?,
        common_name: common_name(subject),
    })
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((set, rest)) = expect(SET, subject) {
        subject = rest;
        let mut set = set;
        while let Some((attribute, rest)) = expect(SEQUENCE, set) {
            set = rest;
            let (oid, value) = expect(OID, attribute)?;
            let (kind, text, _) = element(value)?;
            if oid == COMMON_NAME && STRINGS.contains(&kind) {
                found = String::from_utf8(text.to_vec()).ok();
            }
        }
    }
    found
}

/// `YYMMDDHHMMSSZ` (until 2049) or `YYYYMMDDHHMMSSZ`.
fn instant(kind: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let long = match (kind, text.len()) {
        (UTC_TIME, 12) if text < "50" => format!("20{text}"),
        (UTC_TIME, 12) => format!("19{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| long.get(from..to);
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    )
    .parse()
    .ok()
}

/// Content of the element at the start of `bytes`, if it is of this kind, and what follows.
fn expect(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == kind).then_some((content, rest))
}

/// Kind and content of the DER element at the start of `bytes`, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((kind, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20000 -subj
    /// "/O=Ltd/CN=node-7" -keyout /dev/null`
    const PEM: &str = include_str!("node-7.pem");

    #[test]
    fn a_certificate_says_until_when_and_for_whom() {
        let der = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap();
        let read = read(&der).unwrap();
        assert_eq!(read.common_name.as_deref(), Some("node-7"));
        assert_eq!(read.not_after.to_string(), "2081-08-24T17:16:07Z");
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        let shown = |kind, text: &str| instant(kind, text.as_bytes()).map(|at| at.to_string());
        assert_eq!(
            shown(UTC_TIME, "491231235959Z").as_deref(),
            Some("2049-12-31T23:59:59Z")
        );
        assert_eq!(
            shown(UTC_TIME, "500101000000Z").as_deref(),
            Some("1950-01-01T00:00:00Z")
        );
        assert_eq!(
            shown(GENERALIZED_TIME, "20501231235959Z").as_deref(),
            Some("2050-12-31T23:59:59Z")
        );
        assert_eq!(shown(UTC_TIME, "4912312359Z"), None);
        assert_eq!(shown(GENERALIZED_TIME, "20501331235959Z"), None);
    }

    proptest! {
        #[test]
        fn what_is_no_certificate_is_none_or_some_but_no_panic(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _ = read(&bytes);
            let mut der = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap().to_vec();
            let at = at.index(der.len());
            der[at] = to;
            let _ = read(&der);
        }
    }
}
