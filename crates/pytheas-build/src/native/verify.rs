//! What a build made, looked at before it is believed: each compiled file is one of the target's
//! machine, needs no newer C library than the target's and no library that nobody brings, and
//! modules have the target's name. The wheel gets the tag that says so.

use std::io::{self, Read as _, Write as _};

use base64::Engine as _;
use object::{
    Endianness,
    elf::{FileHeader32, FileHeader64},
    read::elf::{ElfFile, FileHeader, SectionHeader as _},
};
use pytheas_release::Sha256;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::{
    NativeError,
    cross::Target,
    error::{Subject, io_error},
};
use crate::interpreter;

/// A wheel that was looked at.
pub(super) struct Checked {
    /// Its name, with the target's tag.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Number of compiled files in it.
    pub(super) modules: usize,
}

/// Looks at the wheel `bytes`, called `name`.
pub(super) fn checked(
    name: &str,
    bytes: &[u8],
    target: &Target,
    subject: &Subject,
) -> Result<Checked, NativeError> {
    let at = std::path::Path::new(name);
    let wrong = |file: &str, reason: String| NativeError::Unfit {
        package: subject.package.clone(),
        version: subject.version.clone(),
        platform: subject.platform.clone(),
        file: file.to_owned(),
        reason,
    };
    let mut archive = ZipArchive::new(io::Cursor::new(bytes))
        .map_err(|error| io_error("read", at)(io::Error::other(error)))?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| io_error("read", at)(io::Error::other(error)))?;
        if entry.is_dir() {
            continue;
        }
        let path = entry
            .name()
            .map_err(|error| io_error("read", at)(io::Error::other(error)))?
            .into_owned();
        let is_program = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let mut content = Vec::new();
        entry
            .read_to_end(&mut content)
            .map_err(io_error("read", at))?;
        members.push((path, is_program, content));
    }
    let mut modules = 0;
    let bundled: Vec<String> = members
        .iter()
        .map(|(path, ..)| path.rsplit('/').next().unwrap_or(path).to_owned())
        .collect();
    for (path, _, content) in &members {
        if !content.starts_with(b"\x7fELF") || path.ends_with(".o") || path.ends_with(".a") {
            continue;
        }
        check_elf(path, content, target, &bundled).map_err(|reason| wrong(path, reason))?;
        modules += 1;
    }
    let mut parts: Vec<&str> = name.trim_end_matches(".whl").split('-').collect();
    if parts.last() == Some(&"any") {
        if modules > 0 {
            return Err(wrong(
                name,
                "it is compiled, but its tag says `any`".to_owned(),
            ));
        }
        return Ok(Checked {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            modules,
        });
    }
    let tag = target.wheel_platform.clone();
    if let Some(last) = parts.last_mut() {
        *last = &tag;
    }
    let name = format!("{}.whl", parts.join("-"));
    let bytes = retagged(members, &target.wheel_platform).map_err(io_error("write", at))?;
    Ok(Checked {
        name,
        bytes,
        modules,
    })
}

/// What is wrong with the compiled file `content` for the target, in words.
fn check_elf(
    path: &str,
    content: &[u8],
    target: &Target,
    bundled: &[String],
) -> Result<(), String> {
    let facts = facts(content).map_err(|error| format!("it cannot be read: {error}"))?;
    if (facts.class, facts.machine) != target.elf {
        return Err(format!(
            "it is for another CPU (ELF class {}, machine {})",
            facts.class, facts.machine
        ));
    }
    if let (Some(has), Some(needs)) = (target.glibc, facts.glibc)
        && needs > has
    {
        return Err(format!(
            "it needs glibc {}.{}, the target is built for {}.{}",
            needs.0, needs.1, has.0, has.1
        ));
    }
    if let Some(library) = interpreter::needed_libraries(content)
        .into_iter()
        .find(|library| {
            !interpreter::is_c_library(library)
                && !is_compilers(library)
                && !bundled.contains(library)
        })
    {
        return Err(format!("it needs `{library}`, which is not in the wheel"));
    }
    let file = path.rsplit('/').next().unwrap_or(path);
    if file.contains(".cpython-") && !file.ends_with(&target.ext_suffix()) {
        return Err(format!(
            "its name says another Python than `{}`",
            target.ext_suffix()
        ));
    }
    Ok(())
}

/// Libraries that interpreters bring (libgcc, libstdc++), and musl's own name.
fn is_compilers(name: &str) -> bool {
    ["libgcc_s.so", "libstdc++.so", "libatomic.so", "libc.so"]
        .iter()
        .any(|start| name.starts_with(start))
}

struct Facts {
    class: u8,
    machine: u16,
    /// The newest version of glibc whose symbols it uses.
    glibc: Option<(u16, u16)>,
}

fn facts(content: &[u8]) -> Result<Facts, object::read::Error> {
    match content.get(4) {
        Some(1) => facts_of::<FileHeader32<Endianness>>(content, 1),
        _ => facts_of::<FileHeader64<Endianness>>(content, 2),
    }
}

fn facts_of<H: FileHeader<Endian = Endianness>>(
    content: &[u8],
    class: u8,
) -> Result<Facts, object::read::Error> {
    let file = ElfFile::<H>::parse(content)?;
    let endian = file.endian();
    let machine = file.elf_header().e_machine(endian);
    let sections = file.elf_section_table();
    let mut newest = None;
    for section in sections.iter() {
        let Some((mut needs, link)) = section.gnu_verneed(endian, content)? else {
            continue;
        };
        let strings = sections.strings(endian, content, link)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                let Ok(name) = version.name(endian, strings) else {
                    continue;
                };
                let text = String::from_utf8_lossy(name);
                let parsed = text.strip_prefix("GLIBC_").and_then(|text| {
                    let mut parts = text.split('.');
                    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
                });
                newest = newest.max(parsed);
            }
        }
    }
    Ok(Facts {
        class,
        machine: machine.0,
        glibc: newest,
    })
}

/// The wheel of `members` with another platform in its tags; `RECORD` follows.
fn retagged(mut members: Vec<(String, bool, Vec<u8>)>, platform: &str) -> io::Result<Vec<u8>> {
    let mut changed = None;
    for (path, _, content) in &mut members {
        if path.ends_with(".dist-info/WHEEL") {
            let text: String = String::from_utf8_lossy(content)
                .lines()
                .map(|line| match line.strip_prefix("Tag: ") {
                    Some(tag) => {
                        let (kept, _) = tag.rsplit_once('-').unwrap_or((tag, ""));
                        format!("Tag: {kept}-{platform}\n")
                    }
                    None => format!("{line}\n"),
                })
                .collect();
            *content = text.into_bytes();
            changed = Some((path.clone(), record_line(path, content)));
        }
    }
    if let Some((wheel, line)) = changed {
        for (path, _, content) in &mut members {
            if path.ends_with(".dist-info/RECORD") {
                let start = format!("{wheel},");
                let text: String = String::from_utf8_lossy(content)
                    .lines()
                    .map(|old| {
                        let new = if old.starts_with(&start) { &line } else { old };
                        format!("{new}\n")
                    })
                    .collect();
                *content = text.into_bytes();
            }
        }
    }
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (path, is_program, content) in members {
        let options =
            SimpleFileOptions::default().unix_permissions(if is_program { 0o755 } else { 0o644 });
        writer.start_file(path, options).map_err(io::Error::other)?;
        writer.write_all(&content)?;
    }
    Ok(writer.finish().map_err(io::Error::other)?.into_inner())
}

/// A line of `RECORD` (PEP 376).
pub(crate) fn record_line(path: &str, content: &[u8]) -> String {
    let hash =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::of(content).as_bytes());
    format!("{path},sha256={hash},{}", content.len())
}
