//! `pytheas delta`: makes and applies deltas by hand.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Subcommand;
use miette::{Context as _, IntoDiagnostic as _};
use pytheas_durable::trees;
use pytheas_release::{
    Entry, RelPath, Sha256, Tree,
    delta::{self, Delta, DeltaError, MadeSink},
};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// Verbs on deltas.
#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    Make(MakeArgs),
    Apply(ApplyArgs),
}

/// Make the delta that turns one folder into another
#[derive(Debug, clap::Args)]
pub(crate) struct MakeArgs {
    /// The folder as it is
    old: PathBuf,
    /// The folder as it should be
    new: PathBuf,
    /// Where to write the delta
    #[arg(short, long)]
    output: PathBuf,
}

/// Apply a delta to a folder; what comes out is a folder of its own
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The delta
    delta: PathBuf,
    /// The folder that it was made from
    old: PathBuf,
    /// The folder to make
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Serialize)]
struct Made {
    old: String,
    new: String,
    delta_bytes: usize,
    plan_bytes: usize,
    make_ms: u64,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    method: &'static str,
    path: String,
    contents: usize,
    size_bytes: usize,
    packed_bytes: usize,
}

#[derive(Serialize)]
struct Applied {
    tree: String,
    files: u64,
    made: usize,
    made_bytes: u64,
    apply_ms: u64,
}

impl Show for Made {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("delta", bytes(self.delta_bytes as u64))?;
        out.fact("plan", bytes(self.plan_bytes as u64))?;
        for method in ["text", "binary", "patch", "records"] {
            let parts = || self.parts.iter().filter(|part| part.method == method);
            let contents: usize = parts().map(|part| part.contents).sum();
            if contents == 0 {
                continue;
            }
            let size: usize = parts().map(|part| part.size_bytes).sum();
            let packed: usize = parts().map(|part| part.packed_bytes).sum();
            let text = format!(
                "{contents} files, {} in {}",
                bytes(size as u64),
                bytes(packed as u64)
            );
            out.fact(method, text)?;
        }
        out.fact("time", format!("{} ms", self.make_ms))
    }
}

impl Show for Applied {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("tree", &self.tree)?;
        out.fact("files", self.files)?;
        out.fact(
            "made",
            format!("{} contents, {}", self.made, bytes(self.made_bytes)),
        )?;
        out.fact("time", format!("{} ms", self.apply_ms))
    }
}

/// Runs the verb.
pub(crate) fn run(command: &DeltaCommand, context: &Context) -> miette::Result<()> {
    match command {
        DeltaCommand::Make(args) => make(args, context),
        DeltaCommand::Apply(args) => apply(args, context),
    }
}

fn scan(dir: &Path) -> miette::Result<Tree> {
    trees::scan(dir)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read the folder `{}`", dir.display()))
}

fn make(args: &MakeArgs, context: &Context) -> miette::Result<()> {
    let (old, new) = (scan(&args.old)?, scan(&args.new)?);
    let begun = Instant::now();
    let (delta, summary) = delta::make_with_summary(
        &old,
        &new,
        &trees::Folder(args.old.clone()),
        &trees::Folder(args.new.clone()),
    )
    .into_diagnostic()?;
    let make_ms = begun.elapsed().as_millis() as u64;
    pytheas_durable::replace(&args.output, &delta)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", args.output.display()))?;
    context.show(&Made {
        old: old.id().to_string(),
        new: new.id().to_string(),
        delta_bytes: delta.len(),
        plan_bytes: summary.plan_bytes,
        make_ms,
        parts: summary
            .parts
            .into_iter()
            .map(|part| Part {
                method: part.method,
                path: part.path.to_string(),
                contents: part.contents,
                size_bytes: part.size_bytes,
                packed_bytes: part.packed_bytes,
            })
            .collect(),
    })
}

fn apply(args: &ApplyArgs, context: &Context) -> miette::Result<()> {
    let output = &args.output;
    let cannot = |what: &str, path: &Path| format!("cannot {what} `{}`", path.display());
    let old = scan(&args.old)?;
    let begun = Instant::now();
    let file = File::open(&args.delta)
        .into_diagnostic()
        .wrap_err_with(|| cannot("read", &args.delta))?;
    let unusable = || format!("cannot use the delta `{}`", args.delta.display());
    let delta = Delta::open(BufReader::new(file))
        .into_diagnostic()
        .wrap_err_with(unusable)?;
    fs::create_dir(output)
        .into_diagnostic()
        .wrap_err_with(|| format!("{}; it must not be there yet", cannot("create", output)))?;
    let objects = output.join(".made");
    fs::create_dir(&objects)
        .into_diagnostic()
        .wrap_err_with(|| cannot("create", &objects))?;
    let (made, made_bytes) = (delta.head().contents(), delta.head().content_bytes());
    let files = trees::Folder(args.old.clone());
    let mut sink = Objects(objects.clone(), None);
    let result = delta
        .apply(&old, &files, &mut sink)
        .map_err(|error| match error {
            DeltaError::OtherTree { .. } => miette::miette!(
                help = "give the folder that it was made from, as it was then",
                "`{}` was not made from `{}`: {error}",
                args.delta.display(),
                args.old.display()
            ),
            error => miette::Report::from_err(error).wrap_err(unusable()),
        })
        .and_then(|new| {
            lay_out(&new, &old, &args.old, &objects, output)
                .into_diagnostic()
                .wrap_err_with(|| cannot("write into", output))?;
            Ok(new)
        });
    // Half a folder helps nobody.
    let new = result.inspect_err(|_| drop(fs::remove_dir_all(output)))?;
    context.show(&Applied {
        tree: new.id().to_string(),
        files: new.file_count(),
        made,
        made_bytes,
        apply_ms: begun.elapsed().as_millis() as u64,
    })
}

/// Puts the new tree's files where they belong: made ones are moved there, all others copied.
fn lay_out(
    new: &Tree,
    old: &Tree,
    old_dir: &Path,
    objects: &Path,
    output: &Path,
) -> io::Result<()> {
    let known: HashMap<Sha256, &RelPath> = old
        .files()
        .map(|(path, _, sha256)| (sha256, path))
        .collect();
    let mut moved = HashSet::new();
    for (path, entry) in new.iter() {
        let to = path.under(output);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        match entry {
            Entry::Directory => fs::create_dir_all(&to)?,
            Entry::Symlink { target } => std::os::unix::fs::symlink(target, &to)?,
            Entry::File { sha256, .. } => {
                match known.get(sha256) {
                    Some(path) => fs::copy(path.under(old_dir), &to).map(drop)?,
                    None if moved.insert(*sha256) => {
                        fs::hard_link(objects.join(sha256.to_string()), &to)?;
                    }
                    None => fs::copy(objects.join(sha256.to_string()), &to).map(drop)?,
                };
                let mode = if matches!(
                    entry,
                    Entry::File {
                        executable: true,
                        ..
                    }
                ) {
                    0o755
                } else {
                    0o644
                };
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
                fs::set_permissions(&to, permissions)?;
            }
        }
    }
    fs::remove_dir_all(objects)
}

/// What is made, named by its hash.
struct Objects(PathBuf, Option<(File, PathBuf)>);

impl MadeSink for Objects {
    fn begin(&mut self, number: usize, from: u64) -> io::Result<()> {
        let path = self.0.join(number.to_string());
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        file.seek(SeekFrom::Start(from))?;
        self.1 = Some((file, path));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.1 {
            Some((file, _)) => file.write_all(bytes),
            None => Err(io::Error::other("no content was begun")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a folder that is only there when all of it worked"
    )]
    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        match self.1.take() {
            Some((_, path)) => fs::rename(path, self.0.join(sha256.to_string())),
            None => Ok(()),
        }
    }
}
