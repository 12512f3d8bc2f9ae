//! `pytheas board fs`: a board's files.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr};
use pytheas_board::link::{
    Board, LinkError,
    files::{self, Entry},
};
use serde::Serialize;

use super::BoardArgs;
use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// Verbs on files of a board. Paths on the board begin with `/`, or are taken so.
#[derive(Debug, Subcommand)]
pub(crate) enum FsCommand {
    /// List a folder
    Ls {
        /// The folder
        #[arg(default_value = "/")]
        path: String,
        /// With all the folders in it
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Print a file
    Cat {
        /// The file
        path: String,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Copy files to the board; each is replaced in one step
    Put {
        /// Files and folders here, then the place on the board; one that ends in `/` is a folder
        #[arg(num_args = 1.., required = true, value_name = "FILE… [PATH]")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Copy a file or folder from the board
    Get {
        /// The file or folder on the board
        path: String,
        /// Where it goes [default: its name, here]
        to: Option<PathBuf>,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Remove files, or folders with `-r`
    Rm {
        /// The paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// Folders with all that is in them
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Make a folder, and those it lies in
    Mkdir {
        /// The folder
        path: String,
        #[command(flatten)]
        board: BoardArgs,
    },
    /// Show the file systems and what is free
    Df {
        #[command(flatten)]
        board: BoardArgs,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct Entries(Vec<Entry>);

impl Show for Entries {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for entry in &self.0 {
            if entry.folder {
                out.line(format!("{:>9}  {}/", "", entry.path))?;
            } else {
                out.line(format!("{:>9}  {}", entry.size, entry.path))?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Systems(Vec<pytheas_board::link::facts::FileSystem>);

impl Show for Systems {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|fs| {
                [
                    fs.path.clone(),
                    fs.kind.clone(),
                    bytes(fs.size),
                    bytes(fs.free),
                ]
            })
            .collect();
        out.table(["MOUNTED", "KIND", "SIZE", "FREE"], &rows)
    }
}

/// Runs the verb.
pub(super) fn run(command: &FsCommand, context: &Context) -> miette::Result<()> {
    match command {
        FsCommand::Ls {
            path,
            recursive,
            board,
        } => {
            let path = on_board(path);
            let mut board = board.open(context)?;
            let entries = files::list(&mut board, &path, *recursive);
            context.show(&Entries(entries.map_err(|error| about(error, &path))?))
        }
        FsCommand::Cat { path, board } => {
            let path = on_board(path);
            let mut board = board.open(context)?;
            let content = files::read(&mut board, &path, &mut |_| {});
            let content = content.map_err(|error| about(error, &path))?;
            let mut out = io::stdout().lock();
            match out.write_all(&content).and_then(|()| out.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error)
                    .into_diagnostic()
                    .wrap_err("cannot write the file's content"),
                _ => Ok(()),
            }
        }
        FsCommand::Put { paths, board } => put(paths, board, context),
        FsCommand::Get { path, to, board } => {
            let mut board = board.open(context)?;
            get(&mut board, &on_board(path), to.as_deref(), context)
        }
        FsCommand::Rm {
            paths,
            recursive,
            board,
        } => {
            let mut board = board.open(context)?;
            for path in paths {
                let path = on_board(path);
                files::remove(&mut board, &path, *recursive)
                    .map_err(|error| about(error, &path))?;
            }
            Ok(())
        }
        FsCommand::Mkdir { path, board } => {
            let path = on_board(path);
            let mut board = board.open(context)?;
            Ok(files::make_folder(&mut board, &path).map_err(|error| about(error, &path))?)
        }
        FsCommand::Df { board } => {
            let (_board, facts) = board.ask(context)?;
            context.show(&Systems(facts.file_systems))
        }
    }
}

/// `main.py`, `:main.py` (as mpremote writes it) and `/main.py` are the same file.
fn on_board(path: &str) -> String {
    let path = path.strip_prefix(':').unwrap_or(path);
    format!("/{}", path.trim_start_matches('/'))
}

/// What the board's file system says, in words.
fn about(error: LinkError, path: &str) -> miette::Report {
    let line = error.last_line().unwrap_or_default().to_owned();
    let says =
        |name: &str, number: &str| line.contains(name) || line == format!("OSError: {number}");
    let why = match () {
        () if says("ENOENT", "2") => "there is no such file or folder",
        () if says("EISDIR", "21") => "it is a folder",
        () if says("ENOTDIR", "20") => "a file is in the way",
        () if says("ENOTEMPTY", "39") || says("EACCES", "13") => {
            "the folder is not empty: `-r` removes it with all that is in it"
        }
        () if says("ENOSPC", "28") => "the file system is full",
        // What its file systems lack that are read-only: `remove`, `mkdir`, `rename`.
        () if line.contains("object has no attribute") => "it is in an image, which is only read",
        () if says("ENAMETOOLONG", "36") => "the name is too long for its file system",
        () if says("EINVAL", "22") => "its file system does not take this name",
        () if says("EROFS", "30") || says("EPERM", "1") => "it is no file that can be opened so",
        () => return error.into(),
    };
    miette::miette!(
        code = "pytheas::board::file",
        "`{path}` on the board: {why}"
    )
}

fn put(paths: &[PathBuf], args: &BoardArgs, context: &Context) -> miette::Result<()> {
    let (sources, target) = match paths {
        [only] => (std::slice::from_ref(only), "/".to_owned()),
        [sources @ .., target] => (sources, target.to_string_lossy().into_owned()),
        [] => return Ok(()),
    };
    let as_folder = sources.len() > 1 || target.ends_with('/');
    let target = on_board(&target);
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    for source in sources {
        let name = source
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let base = match name {
            Some(name) if as_folder => format!("{}/{name}", target.trim_end_matches('/')),
            _ => target.clone(),
        };
        gather(source, &base, &mut all)?;
    }
    let (mut board, facts) = args.ask(context)?;
    let progress = context.progress();
    for (path, source) in all {
        let content = std::fs::read(&source)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot read `{}`", source.display()))?;
        let mut sent = 0;
        let written = files::write(&mut board, &facts, &path, &content, &mut |count| {
            sent += count;
            progress.detail(format!(
                "{path} {} of {}",
                bytes(sent as u64),
                bytes(content.len() as u64)
            ));
        });
        written.map_err(|error| about(error, &path))?;
    }
    Ok(())
}

/// The files of `source`, with their places below `base`.
fn gather(source: &Path, base: &str, all: &mut Vec<(String, PathBuf)>) -> miette::Result<()> {
    let failed = || format!("cannot read `{}`", source.display());
    if !std::fs::metadata(source)
        .into_diagnostic()
        .wrap_err_with(failed)?
        .is_dir()
    {
        all.push((base.to_owned(), source.to_owned()));
        return Ok(());
    }
    let entries = std::fs::read_dir(source)
        .into_diagnostic()
        .wrap_err_with(failed)?;
    let mut entries: Vec<_> = entries
        .collect::<io::Result<_>>()
        .into_diagnostic()
        .wrap_err_with(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "__pycache__" {
            gather(
                &entry.path(),
                &format!("{}/{name}", base.trim_end_matches('/')),
                all,
            )?;
        }
    }
    Ok(())
}

fn get(board: &mut Board, path: &str, to: Option<&Path>, context: &Context) -> miette::Result<()> {
    let entries = files::list(board, path, true).map_err(|error| about(error, path))?;
    let name = path
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or("board");
    let to = match to {
        Some(to) if to.is_dir() => to.join(name),
        Some(to) => to.to_owned(),
        None => PathBuf::from(name),
    };
    let progress = context.progress();
    for entry in entries {
        let inside = entry
            .path
            .strip_prefix(path.trim_end_matches('/'))
            .unwrap_or(&entry.path);
        let place = match inside.trim_start_matches('/') {
            "" => to.clone(),
            // A board's names are not to lead out of the folder.
            inside => pytheas_release::RelPath::try_from(inside.to_owned())
                .into_diagnostic()
                .wrap_err_with(|| {
                    format!(
                        "`{}` on the board has a name that this machine does not take",
                        entry.path
                    )
                })?
                .under(&to),
        };
        let failed = || format!("cannot write `{}`", place.display());
        if entry.folder {
            pytheas_durable::create_dir_all(&place)
                .into_diagnostic()
                .wrap_err_with(failed)?;
            continue;
        }
        if let Some(folder) = place
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            pytheas_durable::create_dir_all(folder)
                .into_diagnostic()
                .wrap_err_with(failed)?;
        }
        let content = files::read(board, &entry.path, &mut |got| {
            progress.detail(format!(
                "{} {} of {}",
                entry.path,
                bytes(got as u64),
                bytes(entry.size)
            ));
        });
        let content = content.map_err(|error| about(error, &entry.path))?;
        pytheas_durable::replace(&place, &content)
            .into_diagnostic()
            .wrap_err_with(failed)?;
    }
    Ok(())
}
