//! The form `wheel`: wheel and source distribution by the project's own build back end (PEP 517),
//! made the same whenever and wherever they are built.
//!
//! It is no release tree: no interpreter, no lock and no entry point are needed, and the result are
//! files for a package index. Archives are written again with entries in one order, one time
//! (`SOURCE_DATE_EPOCH`, else 1980-01-01), modes 0644 and 0755, and no owner; contents stay. In a
//! wheel `RECORD` is sorted and comes last (PEP 427).

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flate2::{Compression, GzBuilder, read::GzDecoder};
use miette::Diagnostic;
use pytheas_project::{Project, Uv, UvCallError, UvFailure, UvSaid};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    app,
    build::BuildRequest,
    error::{BuildError, io_error},
    event::{Event, Observer, Phase},
    native::own,
};

/// 1980-01-01: the earliest time a zip can hold.
pub(crate) const EARLIEST: u64 = 315_532_800;

/// What was built.
#[derive(Debug, Clone)]
pub struct Distributions {
    /// The wheel.
    pub wheel: PathBuf,
    /// The source distribution.
    pub sdist: PathBuf,
    /// The uv that ran the back end.
    pub uv_version: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// A project that cannot be built into distributions.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum WheelFormError {
    /// No back end.
    #[error("`{}` does not say how it is built into a wheel", dir.display())]
    #[diagnostic(
        code(pytheas::wheel::no_build_system),
        help(
            "add `[build-system]` to its `pyproject.toml`, e.g. `requires = [\"hatchling\"]` and `build-backend = \"hatchling.build\"`; a `bundle` needs none"
        )
    )]
    NoBuildSystem {
        /// The project's folder.
        dir: PathBuf,
    },
    /// The back end failed.
    #[error("the build back end of `{}` failed", dir.display())]
    #[diagnostic(
        code(pytheas::wheel::build),
        help("what it says is above; `uv build` in the project does the same")
    )]
    Build {
        /// The project's folder.
        dir: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The back end made something else.
    #[error("the build back end of `{}` made no {what}", dir.display())]
    #[diagnostic(code(pytheas::wheel::missing), help("try `uv build` in the project"))]
    Missing {
        /// The project's folder.
        dir: PathBuf,
        /// `wheel` or `source distribution`.
        what: &'static str,
    },
    /// `SOURCE_DATE_EPOCH` is no time.
    #[error("`SOURCE_DATE_EPOCH` is `{text}`, which is no number of seconds since 1970")]
    #[diagnostic(
        code(pytheas::wheel::epoch),
        help("set it to e.g. the output of `git log -1 --format=%ct`, or unset it")
    )]
    Epoch {
        /// Its value.
        text: String,
    },
    /// An archive of the back end cannot be read.
    #[error("`{file}` is no archive that can be read")]
    #[diagnostic(
        code(pytheas::wheel::archive),
        help("the build back end made it; try another version of it")
    )]
    Archive {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
}

/// Whether `form` is this one.
pub fn is_wheel_form(request: &BuildRequest) -> Result<bool, BuildError> {
    let target = request.project.target(request.target.as_deref())?;
    let form = request.form.as_deref().or(target.form.as_deref());
    Ok(form == Some("wheel"))
}

/// Builds wheel and source distribution into `request.out`, else `dist` in the project.
///
/// # Errors
/// [`WheelFormError`] in a [`BuildError`]; what lay there before is then untouched.
pub fn distributions(
    request: &BuildRequest,
    observer: Observer<'_>,
) -> Result<Distributions, BuildError> {
    let start = Instant::now();
    let project = &request.project;
    let epoch = epoch(request)?;
    let has_setup = ["setup.py", "setup.cfg"]
        .iter()
        .any(|name| project.dir.join(name).is_file());
    if !project.has_build_system && !has_setup {
        return Err(WheelFormError::NoBuildSystem {
            dir: project.dir.clone(),
        }
        .into());
    }
    let tell = |event| observer(Event::Project(event));
    let uv =
        Uv::find(&request.environment, request.connectivity, &tell)?.for_project(&request.project);
    observer(Event::Phase(Phase::App));
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let out = match &request.out {
        Some(out) => std::path::absolute(out).map_err(io_error("find", out))?,
        None => project.dir.join("dist"),
    };
    let made = scratch.path().join("made");
    // For a platform that is named, code is compiled so that it runs on all machines of it.
    let target = project.target(request.target.as_deref())?;
    let platform = request.platform.as_ref().or(target.platform.as_ref());
    let run = |what| run_back_end(request, &uv, scratch.path(), &made, &out, epoch, what);
    match platform {
        None => run(&[])?,
        Some(platform) => {
            run(&["--sdist"])?;
            let compiled =
                own::compiled_distribution(request, &target, &uv, platform, &made, observer)?;
            if !compiled {
                run(&["--wheel"])?;
            }
        }
    }
    let find = |end: &str, what| {
        let children = std::fs::read_dir(&made).into_iter().flatten().flatten();
        let mut names = children.filter_map(|child| child.file_name().into_string().ok());
        names
            .find(|name| name.ends_with(end))
            .ok_or_else(|| WheelFormError::Missing {
                dir: project.dir.clone(),
                what,
            })
    };
    let wheel = find(".whl", "wheel")?;
    let sdist = find(".tar.gz", "source distribution")?;
    let read = |name: &str| {
        let path = made.join(name);
        std::fs::read(&path).map_err(io_error("read", &path))
    };
    let archive = |file: &str| {
        let file = file.to_owned();
        move |source| WheelFormError::Archive { file, source }
    };
    let wheel_bytes = normalised_wheel(&read(&wheel)?, epoch).map_err(archive(&wheel))?;
    let sdist_bytes = normalised_sdist(&read(&sdist)?, epoch).map_err(archive(&sdist))?;
    pytheas_durable::create_dir_all(&out).map_err(io_error("make", &out))?;
    let keep = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        pytheas_durable::replace(&path, bytes).map_err(io_error("write", &path))?;
        Ok::<_, BuildError>(path)
    };
    Ok(Distributions {
        sdist: keep(&sdist, &sdist_bytes)?,
        wheel: keep(&wheel, &wheel_bytes)?,
        uv_version: uv.version.to_string(),
        elapsed: start.elapsed(),
    })
}

fn epoch(request: &BuildRequest) -> Result<u64, WheelFormError> {
    let Some(text) = request.environment.get("SOURCE_DATE_EPOCH") else {
        return Ok(EARLIEST);
    };
    let number: u64 = text.trim().parse().map_err(|_| WheelFormError::Epoch {
        text: text.to_owned(),
    })?;
    Ok(number.max(EARLIEST))
}

/// `uv build`: the source distribution, and the wheel from it, as PEP 517 means them.
fn run_back_end(
    request: &BuildRequest,
    uv: &Uv,
    scratch: &Path,
    made: &Path,
    out: &Path,
    epoch: u64,
    what: &[&str],
) -> Result<(), BuildError> {
    let Project { dir, .. } = &request.project;
    // Some back ends put the folder's name into what they make.
    let source = scratch
        .join("source")
        .join(dir.file_name().unwrap_or_else(|| "project".as_ref()));
    app::copy_for_build(dir, &source, out)?;
    let mut command = uv.command();
    command
        .args(["build", "--no-create-gitignore"])
        .args(what)
        .arg("--out-dir")
        .arg(made)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("PYTHONHASHSEED", "0")
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8");
    if let Some(python) = request.project.python(request.python.as_ref()) {
        command.args(["--python", &python.to_string()]);
    }
    command.arg(&source);
    let name = request.project.name.as_str();
    // The copy is ours: a back end may write, rename and leave in it what it wants.
    uv.isolation().describe(&mut command, name, scratch);
    uv.run(command).map_err(|error| match error {
        UvCallError::Failed(
            UvFailure::Build | UvFailure::Unresolvable | UvFailure::Other,
            source,
        ) => WheelFormError::Build {
            dir: dir.clone(),
            source,
        }
        .into(),
        other => BuildError::from(crate::dependencies::uv_error(uv, other)),
    })?;
    Ok(())
}

/// Year, month, day, hour, minute, second (Howard Hinnant's civil_from_days).
fn civil(epoch: u64) -> (u64, u8, u8, u8, u8, u8) {
    let (days, seconds) = (epoch / 86_400 + 719_468, epoch % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let small = |number: u64| u8::try_from(number).unwrap_or(0);
    (
        year,
        small(month),
        small(day),
        small(seconds / 3600),
        small(seconds / 60 % 60),
        small(seconds % 60),
    )
}

/// The wheel `bytes` with the same contents, written in the one way.
pub(crate) fn normalised_wheel(bytes: &[u8], epoch: u64) -> io::Result<Vec<u8>> {
    let mut archive = ZipArchive::new(io::Cursor::new(bytes)).map_err(io::Error::other)?;
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(io::Error::other)?;
        if entry.is_dir() {
            continue; // PEP 427: only files matter
        }
        let name = entry.name().map_err(io::Error::other)?.into_owned();
        let is_program = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if name.ends_with(".dist-info/RECORD") {
            content = sorted_lines(&content);
        }
        let in_info = name
            .split('/')
            .next()
            .is_some_and(|top| top.ends_with(".dist-info"));
        let is_record = name.ends_with(".dist-info/RECORD");
        entries.push(((is_record, in_info, name), is_program, content));
    }
    entries.sort();
    let (year, month, day, hour, minute, second) = civil(epoch);
    let year = u16::try_from(year).unwrap_or(2107);
    let time =
        DateTime::from_date_and_time(year, month, day, hour, minute, second).unwrap_or_default();
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for ((.., name), is_program, content) in entries {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(time)
            .unix_permissions(if is_program { 0o755 } else { 0o644 });
        writer.start_file(name, options).map_err(io::Error::other)?;
        writer.write_all(&content)?;
    }
    Ok(writer.finish().map_err(io::Error::other)?.into_inner())
}

fn sorted_lines(text: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    lines
        .iter()
        .flat_map(|line| [line, &b"\n"[..]])
        .flatten()
        .copied()
        .collect()
}

/// The source distribution `bytes` with the same contents, written in the one way.
pub(crate) fn normalised_sdist(bytes: &[u8], epoch: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let mut entries = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        let is_program = kind.is_dir() || entry.header().mode()? & 0o111 != 0;
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        entries.push((path, kind.as_byte(), link, is_program, content));
    }
    entries.sort();
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    let mut builder = tar::Builder::new(gzip);
    for (path, kind, link, is_program, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mtime(epoch);
        header.set_mode(if is_program { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        match link {
            Some(link) => {
                header.set_size(0);
                builder.append_link(&mut header, &path, link)?;
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, &path, &content[..])?;
            }
        }
    }
    builder.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(civil(EARLIEST), (1980, 1, 1, 0, 0, 0));
        assert_eq!(civil(951_827_696), (2000, 2, 29, 12, 34, 56));
        assert_eq!(civil(1_795_219_199), (2026, 11, 20, 23, 59, 59));
    }

    fn zip_of(entries: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, text, mode) in entries {
            let time =
                DateTime::from_date_and_time(2020, 1, *mode as u8 % 20 + 1, 1, 1, 0).unwrap();
            let options = SimpleFileOptions::default()
                .unix_permissions(*mode)
                .last_modified_time(time);
            writer.start_file(*name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn wheels_with_the_same_contents_become_the_same_bytes() {
        let one = zip_of(&[
            ("b.py", "b", 0o600),
            ("a-1.dist-info/RECORD", "b.py,,\r\na.sh,,\r\n", 0o644),
            ("a.sh", "a", 0o744),
        ]);
        let other = zip_of(&[
            ("a.sh", "a", 0o755),
            ("b.py", "b", 0o644),
            ("a-1.dist-info/RECORD", "a.sh,,\nb.py,,\n", 0o640),
        ]);
        let normal = normalised_wheel(&one, EARLIEST).unwrap();
        assert!(normal == normalised_wheel(&other, EARLIEST).unwrap());
        assert!(normal == normalised_wheel(&normal, EARLIEST).unwrap());
        assert!(normal != normalised_wheel(&one, EARLIEST + 100).unwrap());
        let mut archive = ZipArchive::new(io::Cursor::new(normal)).unwrap();
        let names: Vec<_> = archive.file_names().collect();
        assert_eq!(names.len(), 3);
        assert_eq!(
            archive.by_index(2).unwrap().name().unwrap(),
            "a-1.dist-info/RECORD"
        );
        assert_eq!(
            archive.by_name("a.sh").unwrap().unix_mode().unwrap() & 0o777,
            0o755
        );
        assert!(normalised_wheel(b"no zip", EARLIEST).is_err());
        assert!(normalised_sdist(b"no tar", EARLIEST).is_err());
    }
}
