//! Unpacking a wheel (PEP 427, binary distribution format 1.x) as an installer lays it out in one
//! folder: `*.data/purelib`, `platlib` and `data` at the top, `scripts` in `bin`, `headers` in
//! `include/NAME`. `RECORD` gets the new paths.
//!
//! Refused: names that are absolute, climb out or occur twice, links, other compressions, members
//! that are larger than they say or all in all larger than [`limit_bytes`], and files that do not
//! have the hash of their line in `RECORD`.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    path::Path,
};

use base64::Engine as _;
use pytheas_release::{RelPath, Sha256};
use zip::ZipArchive;

use super::{InstallError, io_error, store::File};
use crate::scratch::{self, Kind};

/// No wheel has more files than this.
const ENTRIES_MAX: usize = 200_000;
/// No wheel holds more than this.
const TOTAL_MAX: u64 = 8 << 30;

/// What a wheel of `size` bytes may hold. Packages with much text reach a ratio of 10; deflate's
/// limit is 1032.
fn limit_bytes(size: u64) -> u64 {
    (size.saturating_mul(100) + (16 << 20)).min(TOTAL_MAX)
}

/// Unpacks the wheel `bytes` called `name` into the new folder `into`; gives the files.
pub(super) fn unpack(
    name: &str,
    bytes: &[u8],
    into: &Path,
) -> Result<BTreeMap<RelPath, File>, InstallError> {
    let wrong = |reason: String| InstallError::Wheel {
        file: name.to_owned(),
        reason,
    };
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| wrong(error.to_string()))?;
    match declared_entries(bytes) {
        Some(count) if count == archive.len() as u64 => {}
        _ => return Err(wrong("it has two files of one name".to_owned())),
    }
    if archive.len() > ENTRIES_MAX {
        return Err(wrong(format!("it has more than {ENTRIES_MAX} files")));
    }
    let mut members = BTreeMap::new();
    let mut left = limit_bytes(bytes.len() as u64);
    for index in 0..archive.len() {
        let member = archive
            .by_index_raw(index)
            .map_err(|error| wrong(error.to_string()))?;
        let Ok(text) = std::str::from_utf8(member.name_raw()) else {
            let shown = String::from_utf8_lossy(member.name_raw()).into_owned();
            return Err(wrong(format!("the name `{shown}` is not UTF-8")));
        };
        let is_dir = text.ends_with('/');
        let path: RelPath = text
            .trim_end_matches('/')
            .parse()
            .map_err(|reason| wrong(format!("the name `{}` {reason}", text.escape_debug())))?;
        if text.contains('\\') {
            return Err(wrong(format!(
                "the name `{}` has a backslash",
                text.escape_debug()
            )));
        }
        let mode = member.unix_mode().unwrap_or(0o100_644);
        if !matches!(mode & 0o170_000, 0o100_000 | 0o040_000 | 0) {
            return Err(wrong(format!("`{path}` is a link or a special file")));
        }
        left = left.checked_sub(member.size()).ok_or_else(|| {
            wrong(format!(
                "it would unpack to more than {} bytes",
                limit_bytes(bytes.len() as u64)
            ))
        })?;
        if !is_dir {
            let kind = if mode & 0o111 != 0 {
                Kind::Program
            } else {
                Kind::Data
            };
            members.insert(path, (index, kind));
        }
    }
    let info = info_dir(&members).map_err(&wrong)?;
    let record_path = member_path(&format!("{info}/RECORD")).map_err(&wrong)?;
    let mut read = |index: usize, path: &RelPath| -> Result<Vec<u8>, InstallError> {
        let mut member = archive
            .by_index(index)
            .map_err(|error| wrong(format!("`{path}`: {error}")))?;
        let size = member.size();
        let mut content = Vec::new();
        (&mut member)
            .take(size + 1)
            .read_to_end(&mut content)
            .map_err(|error| wrong(format!("`{path}`: {error}")))?;
        if content.len() as u64 != size {
            return Err(wrong(format!("`{path}` has another size than it says")));
        }
        Ok(content)
    };
    let Some((record_index, _)) = members.get(&record_path) else {
        return Err(wrong("it has no `RECORD`".to_owned()));
    };
    let record = read(*record_index, &record_path)?;
    let record =
        String::from_utf8(record).map_err(|_| wrong("`RECORD` is not UTF-8".to_owned()))?;
    let lines = parse_record(&record).map_err(&wrong)?;
    let hashes: BTreeMap<&str, &str> = lines
        .iter()
        .map(|line| (line[0].as_str(), line[1].as_str()))
        .collect();

    let mut files = BTreeMap::new();
    for (path, (index, kind)) in &members {
        if *path == record_path {
            continue;
        }
        let content = read(*index, path)?;
        let sha256 = Sha256::of(&content);
        check_hash(path, sha256, hashes.get(path.as_str()).copied()).map_err(&wrong)?;
        let place = member_path(&placed(path.as_str(), &info)).map_err(&wrong)?;
        check_scheme(path.as_str(), &info).map_err(&wrong)?;
        if path.as_str() == format!("{info}/entry_points.txt") {
            check_programs(&content).map_err(&wrong)?;
        }
        let is_script = path
            .as_str()
            .starts_with(&format!("{}/scripts/", data_dir(&info)));
        let kind = if is_script { Kind::Program } else { *kind };
        let target = place.under(into);
        if files.contains_key(&place) {
            return Err(wrong(format!("two of its files are to lie at `{place}`")));
        }
        scratch::write(&target, &content, kind).map_err(io_error("write", &target))?;
        let size_bytes = content.len() as u64;
        files.insert(
            place,
            File {
                sha256,
                size_bytes,
                kind,
            },
        );
    }
    let record = rewritten(&lines, &info);
    let target = record_path.under(into);
    scratch::write(&target, record.as_bytes(), Kind::Data).map_err(io_error("write", &target))?;
    let file = File {
        sha256: Sha256::of(record.as_bytes()),
        size_bytes: record.len() as u64,
        kind: Kind::Data,
    };
    files.insert(record_path, file);
    Ok(files)
}

fn member_path(text: &str) -> Result<RelPath, String> {
    text.parse()
        .map_err(|reason| format!("the name `{}` {reason}", text.escape_debug()))
}

/// The number of members that the end of the archive tells; the reader itself drops all but the
/// last of one name (APPNOTE 6.3.10, 4.3.14 to 4.3.16).
fn declared_entries(bytes: &[u8]) -> Option<u64> {
    let start = bytes.len().saturating_sub(65_557);
    let at = start
        + bytes[start..]
            .windows(4)
            .rposition(|w| w == b"PK\x05\x06")?;
    let count = u16::from_le_bytes(bytes.get(at + 10..at + 12)?.try_into().ok()?);
    if count != u16::MAX {
        return Some(u64::from(count));
    }
    let locator = at.checked_sub(20)?;
    if bytes.get(locator..locator + 4)? != b"PK\x06\x07" {
        return Some(u64::from(count));
    }
    let offset = u64::from_le_bytes(bytes.get(locator + 8..locator + 16)?.try_into().ok()?);
    let at = usize::try_from(offset).ok()?;
    let field = bytes.get(at.checked_add(32)?..at.checked_add(40)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// The one `*.dist-info` folder.
fn info_dir(members: &BTreeMap<RelPath, (usize, Kind)>) -> Result<String, String> {
    let mut found: Vec<&str> = members
        .keys()
        .filter_map(|path| path.as_str().strip_suffix("/WHEEL"))
        .filter(|dir| dir.ends_with(".dist-info") && !dir.contains('/'))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(dir), true) => Ok(dir.to_owned()),
        (Some(_), false) => Err("it has more than one `.dist-info` folder".to_owned()),
        (None, _) => Err("it has no `.dist-info` folder with a file `WHEEL`".to_owned()),
    }
}

fn data_dir(info: &str) -> String {
    format!("{}.data", info.trim_end_matches(".dist-info"))
}

/// Refuses files for places that no wheel has (PEP 427): `NAME.data/stdlib` would be the library of the
/// Python itself.
fn check_scheme(path: &str, info: &str) -> Result<(), String> {
    let data = data_dir(info);
    let Some(rest) = path
        .strip_prefix(&data)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return Ok(());
    };
    match rest.split_once('/') {
        Some(("purelib" | "platlib" | "data" | "scripts" | "headers", _)) => Ok(()),
        _ => Err(format!("`{path}` is for no place that a wheel has")),
    }
}

/// Refuses programs whose names are paths: installers would write them elsewhere.
fn check_programs(entry_points: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(entry_points);
    let mut is_of_programs = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_of_programs = matches!(line, "[console_scripts]" | "[gui_scripts]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| is_of_programs) {
            let name = name.trim();
            if name.contains('/') || matches!(name, "." | "..") {
                return Err(format!("its program `{name}` would lie elsewhere"));
            }
        }
    }
    Ok(())
}

/// Where the member `path` lies after the installation.
fn placed(path: &str, info: &str) -> String {
    let data = data_dir(info);
    let Some(rest) = path
        .strip_prefix(&data)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return path.to_owned();
    };
    match rest.split_once('/') {
        Some(("purelib" | "platlib" | "data", inside)) => inside.to_owned(),
        Some(("scripts", inside)) => format!("bin/{inside}"),
        Some(("headers", inside)) => {
            let name = data.split('-').next().unwrap_or_default();
            format!("include/{name}/{inside}")
        }
        _ => path.to_owned(),
    }
}

/// The lines of `RECORD` (CSV as in PEP 376): path, hash, size.
fn parse_record(text: &str) -> Result<Vec<[String; 3]>, String> {
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = vec![String::new()];
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let field = fields.len() - 1;
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    fields[field].push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields[field].push(c),
            }
        }
        fields.resize(3, String::new());
        lines.push(
            fields
                .try_into()
                .map_err(|_| "`RECORD` is damaged".to_owned())?,
        );
    }
    Ok(lines)
}

/// `RECORD` for the files in their new places.
fn rewritten(lines: &[[String; 3]], info: &str) -> String {
    let quote = |field: &str| {
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    };
    lines
        .iter()
        .map(|[path, hash, size]| {
            format!(
                "{},{},{}\n",
                quote(&placed(path, info)),
                quote(hash),
                quote(size)
            )
        })
        .collect()
}

/// Compares with the hash in `RECORD`. A file that is not listed is taken: the wheel as a whole has
/// its locked hash, and older wheels leave out some of theirs.
fn check_hash(path: &RelPath, found: Sha256, listed: Option<&str>) -> Result<(), String> {
    let Some((algorithm, digest)) = listed.and_then(|listed| listed.split_once('=')) else {
        return Ok(());
    };
    if algorithm != "sha256" {
        return Ok(());
    }
    let digest = digest.trim_end_matches('=');
    let expected = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(digest);
    let hex: String = expected
        .unwrap_or_default()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if hex == found.to_string() {
        Ok(())
    } else {
        Err(format!(
            "`{path}` does not have the hash that its `RECORD` says"
        ))
    }
}
