//! Canonical JSON (OLPC) of the signed part of a metadata file: what signatures are made over.
//!
//! Made from the text itself, not from what we understood of it, so that fields we do not know
//! count too (TUF §4.1). Members sorted by their names, no white space, only `"` and `\` escaped,
//! numbers only integers. A name that occurs twice is refused: two readers could see two files.
//! Memory is a small multiple of the text, whatever the text is: nobody has signed it yet.

use std::{cmp::Ordering, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The canonical form of the member `signed` of the file `bytes`.
pub(super) fn signed_part(bytes: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut file = serde_json::Deserializer::from_slice(bytes);
    let signed = file.deserialize_map(File)?;
    file.end()?;
    Ok(signed)
}

/// The whole file, of which one member matters.
struct File;

impl<'de> Visitor<'de> for File {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `signed` and `signatures`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Vec<u8>, M::Error> {
        let mut signed = None;
        while let Some(name) = members.next_key::<String>()? {
            if name != "signed" {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let mut out = Vec::new();
            members.next_value_seed(Canonical(&mut out))?;
            if signed.replace(out).is_some() {
                return Err(M::Error::duplicate_field("signed"));
            }
        }
        signed.ok_or_else(|| M::Error::missing_field("signed"))
    }
}

/// Appends the canonical form of whatever comes.
struct Canonical<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.extend(b"null");
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0
            .extend(if value { &b"true"[..] } else { &b"false"[..] });
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.extend(value.to_string().bytes());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.extend(value.to_string().bytes());
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        string(self.0, value);
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        self.0.push(b'[');
        let start = self.0.len();
        loop {
            let end = self.0.len();
            if end > start {
                self.0.push(b',');
            }
            if items.next_element_seed(Canonical(self.0))?.is_none() {
                self.0.truncate(end);
                break;
            }
        }
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        // First as they come, then in order.
        let start = self.0.len();
        let mut places: Vec<(Range<usize>, usize)> = Vec::new();
        loop {
            let name = self.0.len() - start;
            if members.next_key_seed(Canonical(self.0))?.is_none() {
                break;
            }
            let name = name..self.0.len() - start;
            self.0.push(b':');
            members.next_value_seed(Canonical(self.0))?;
            places.push((name, self.0.len() - start));
        }
        let unsorted = self.0.split_off(start);
        places.sort_by(|(a, _), (b, _)| by_name(&unsorted[a.clone()], &unsorted[b.clone()]));
        self.0.push(b'{');
        let mut before: Option<&[u8]> = None;
        for (name, end) in places {
            let text = &unsorted[name.clone()];
            match before.replace(text) {
                Some(same) if same == text => {
                    return Err(M::Error::custom(format_args!(
                        "the name {} occurs twice in one object",
                        String::from_utf8_lossy(text)
                    )));
                }
                Some(_) => self.0.push(b','),
                None => {}
            }
            self.0.extend_from_slice(&unsorted[name.start..end]);
        }
        self.0.push(b'}');
        Ok(())
    }
}

fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Orders two written strings by the code points that they stand for.
fn by_name(a: &[u8], b: &[u8]) -> Ordering {
    fn plain(text: &[u8]) -> impl Iterator<Item = u8> {
        let inner = &text[1..text.len() - 1]; // both quotes were written above
        let mut escaped = false;
        inner.iter().copied().filter(move |byte| {
            escaped = *byte == b'\\' && !escaped;
            !escaped
        })
    }
    plain(a).cmp(plain(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(signed: &str, expected: &str) {
        let file = format!(r#"{{"x": [1], "signatures": [], "signed": {signed}}}"#);
        let found = signed_part(file.as_bytes())
            .map_or_else(|e| e.to_string(), |b| String::from_utf8(b).unwrap());
        assert!(found.starts_with(expected), "{signed}: {found}");
    }

    #[test]
    fn canonical_json_is_sorted_bare_and_keeps_what_it_does_not_know() {
        check(
            r#"{ "b": [1, -2, [ ], {}], "a": {"z": null, "y": true}, "é": "\n", "": false }"#,
            "{\"\":false,\"a\":{\"y\":true,\"z\":null},\"b\":[1,-2,[],{}],\"é\":\"\n\"}",
        );
        check(r#""say \"\\\" \u00e9 \/""#, r#""say \"\\\" é /""#);
        // Sorted by what a name says, not by how it is written.
        check(
            r#"{"a\\": 1, "a]": 2, "a\"": 3, "a": 4}"#,
            r#"{"a":4,"a\"":3,"a\\":1,"a]":2}"#,
        );
        check("18446744073709551615", "18446744073709551615");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        check(
            r#"{"a": 1, "b": 2, "a": 1}"#,
            r#"the name "a" occurs twice"#,
        );
        check("1.5", "invalid type: floating point");
        check("18446744073709551616", "invalid type: floating point");
        check(r#"1, "signed": 1"#, "duplicate field `signed`");
        assert!(signed_part(br#"{"signed": 1} x"#).is_err());
        assert!(signed_part(b"[]").is_err());
        assert!(signed_part(b"{}").is_err());
        let deep = format!(
            r#"{{"signed": {}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(signed_part(deep.as_bytes()).is_err());
    }
}
