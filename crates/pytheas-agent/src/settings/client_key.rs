//! Where the device's private key is: in a file, in a PKCS#11 token, or behind a command.
//!
//! A token is named by its URI (RFC 7512): `pkcs11:token=device;object=tls?pin-source=file:/etc/pytheas/pin`.
//! Of its attributes those are understood by which OpenSC's `pkcs11-tool` can choose: `token`,
//! `slot-id`, `object`, `id`, `type=private`, `module-path`, `pin-source`. A PIN itself
//! (`pin-value`) is refused: command lines and settings are read by many.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// The device's private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKey {
    /// In this PEM file.
    File(PathBuf),
    /// In a token.
    Token(TokenKey),
    /// This command signs, run by `/bin/sh -c`.
    Command(String),
}

/// A key in a PKCS#11 token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's label.
    pub token: Option<String>,
    /// The slot that it is in.
    pub slot: Option<u64>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's id.
    pub id: Option<Vec<u8>>,
    /// The shared library that speaks to the token; else `pkcs11-tool`'s own.
    pub module: Option<PathBuf>,
    /// File with the PIN; else the environment says it.
    pub pin: Option<PathBuf>,
}

impl ClientKey {
    /// As it is meant in a file of settings in the folder `below`.
    pub(crate) fn below(self, below: &Path) -> Self {
        let absolute = |path: PathBuf| {
            let path = below.join(path);
            std::path::absolute(&path).unwrap_or(path)
        };
        match self {
            Self::File(path) => Self::File(absolute(path)),
            Self::Token(token) => Self::Token(TokenKey {
                pin: token.pin.map(absolute),
                ..token
            }),
            Self::Command(command) => Self::Command(command),
        }
    }
}

impl FromStr for ClientKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("pkcs11:") {
            Some(rest) => parse_uri(rest).map(Self::Token),
            None if text.is_empty() => Err("an empty path".into()),
            None => Ok(Self::File(text.into())),
        }
    }
}

fn parse_uri(rest: &str) -> Result<TokenKey, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut key = TokenKey::default();
    let parts = path.split(';').chain(query.split('&'));
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is no `name=value`"))?;
        let bytes = decode(value).ok_or_else(|| format!("`{part}`: a `%` without two digits"))?;
        if name == "id" {
            key.id = Some(bytes);
            continue;
        }
        let text = String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0') && !text.is_empty())
            .ok_or_else(|| format!("`{part}`: a text is wanted"))?;
        match name {
            "token" => key.token = Some(text),
            "object" => key.object = Some(text),
            "slot-id" => {
                let slot = text.parse();
                key.slot = Some(slot.map_err(|_| format!("`{part}`: a number is wanted"))?);
            }
            "type" if text == "private" => {}
            "module-path" => key.module = Some(text.into()),
            "pin-source" => {
                let file = text.strip_prefix("file:").unwrap_or(&text);
                let file = file.strip_prefix("//").unwrap_or(file);
                if file.starts_with('|') || file.is_empty() {
                    return Err(
                        "`pin-source` names a file: `pin-source=file:/etc/pytheas/pin`".into(),
                    );
                }
                key.pin = Some(file.into());
            }
            "pin-value" => {
                return Err("a PIN is not written into settings: put it into a file of mode 0600 and write `pin-source=file:/…`, or set PYTHEAS_CLIENT_PIN".into());
            }
            _ => {
                return Err(format!(
                    "keys cannot be chosen by `{name}`; there are `token`, `slot-id`, `object`, `id`, `module-path` and `pin-source`"
                ));
            }
        }
    }
    match key.object.is_some() || key.id.is_some() {
        true => Ok(key),
        false => Err("which key? Add `object=LABEL` or `id=%01`".into()),
    }
}

/// Percent-encoded bytes (RFC 3986 §2.1).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.extend(hex::decode(digits).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_its_uri() {
        let key: ClientKey =
            "pkcs11:token=my%20device;object=tls;id=%01%ff;type=private?pin-source=file:/etc/pin&module-path=/usr/lib/x.so"
                .parse()
                .unwrap();
        assert_eq!(
            key,
            ClientKey::Token(TokenKey {
                token: Some("my device".into()),
                slot: None,
                object: Some("tls".into()),
                id: Some(vec![1, 255]),
                module: Some("/usr/lib/x.so".into()),
                pin: Some("/etc/pin".into()),
            })
        );
        assert_eq!(
            "device-key.pem".parse(),
            Ok(ClientKey::File("device-key.pem".into()))
        );
        let below: ClientKey = "pkcs11:id=a?pin-source=pin".parse().unwrap();
        let ClientKey::Token(token) = below.below(Path::new("/etc/pytheas")) else {
            panic!("a token")
        };
        assert_eq!(token.pin, Some("/etc/pytheas/pin".into()));
    }

    #[test]
    fn what_cannot_name_a_key_is_refused() {
        let refused = |uri: &str| uri.parse::<ClientKey>().unwrap_err();
        insta::assert_snapshot!(refused("pkcs11:token=a"), @"which key? Add `object=LABEL` or `id=%01`");
        insta::assert_snapshot!(refused("pkcs11:object=a?pin-value=1234"), @"a PIN is not written into settings: put it into a file of mode 0600 and write `pin-source=file:/…`, or set PYTHEAS_CLIENT_PIN");
        insta::assert_snapshot!(refused("pkcs11:object=a;serial=77"), @"keys cannot be chosen by `serial`; there are `token`, `slot-id`, `object`, `id`, `module-path` and `pin-source`");
        insta::assert_snapshot!(refused("pkcs11:object=a%4"), @"`object=a%4`: a `%` without two digits");
        insta::assert_snapshot!(refused("pkcs11:object"), @"`object` is no `name=value`");
        insta::assert_snapshot!(refused("pkcs11:object=a?pin-source=|cat"), @"`pin-source` names a file: `pin-source=file:/etc/pytheas/pin`");
        insta::assert_snapshot!(refused("pkcs11:object=a%00b"), @"`object=a%00b`: a text is wanted");
        insta::assert_snapshot!(refused("pkcs11:object=a;slot-id=x"), @"`slot-id=x`: a number is wanted");
    }

    proptest::proptest! {
        #[test]
        fn no_uri_makes_the_parser_panic(text in ".{0,60}") {
            let _any = format!("pkcs11:{text}").parse::<ClientKey>();
        }
    }
}
