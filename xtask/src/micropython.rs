//! MicroPython to test against (boards, a networked one, a meter of instructions), made from
//! registry packages by `micropython/build.sh`: `target/tools/micropython`.
//!
//! It is made once per recipe and machine, in the user's cache folder, and linked from there, so
//! that further clones and worktrees have it at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{launcher, setup};

/// Whether what is made has everything depends on these; with one more of them it is made anew.
const COMPILERS: &[&str] = &["arm-none-eabi-gcc", "npm"];

/// Makes it unless it is there; without it the tests on boards skip, visibly.
pub(crate) fn make(root: &Path, install: bool) {
    let link = setup::tools_dir(root).join("micropython");
    match cached(root, install) {
        Ok(Some(made)) => {
            if let Err(error) = point(&link, &made) {
                println!("cannot link `{}`: {error}", link.display());
            }
        }
        Ok(None) => println!("no MicroPython to test against: those tests skip"),
        Err(error) => println!("MicroPython cannot be made ({error}): its tests skip"),
    }
}

/// The folder in the cache, made if need be; none where it cannot be.
fn cached(root: &Path, install: bool) -> io::Result<Option<PathBuf>> {
    let recipe = root.join("xtask/src/micropython");
    let mut all = Vec::new();
    for name in ["build.sh", "board.c", "board.h", "frozen/_boot.py"] {
        all.extend(fs::read(recipe.join(name))?);
    }
    for compiler in COMPILERS {
        all.push(u8::from(setup::on_path(compiler)));
    }
    let Some(cache) = cache_dir() else {
        return Ok(None);
    };
    fs::create_dir_all(&cache)?;
    let out = cache.join(launcher::fingerprint(&all));
    let done = out.with_extension("done");
    // Whoever comes second waits for the first.
    let lock = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(out.with_extension("lock"))?;
    lock.lock()?;
    if done.is_file() && out.is_dir() {
        return Ok(Some(out));
    }
    if !install || !setup::on_path("apt-get") {
        return Ok(None);
    }
    println!(
        "making MicroPython in {} (once, some minutes)",
        out.display()
    );
    let begun = Instant::now();
    let made = Command::new("sh")
        .arg(recipe.join("build.sh"))
        .args([&out, &recipe])
        .stdin(Stdio::null())
        .status()?;
    if !made.success() {
        return Ok(None);
    }
    println!("made MicroPython in {} s", begun.elapsed().as_secs());
    for line in fs::read_to_string(out.join("MISSING"))
        .unwrap_or_default()
        .lines()
    {
        println!("not made for {line}");
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&done)?;
    Ok(Some(out))
}

fn cache_dir() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("pytheas-xtask/micropython"))
}

/// Makes `link` a link to `target`, whatever was there.
fn point(link: &Path, target: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    if let Ok(old) = fs::symlink_metadata(link) {
        if old.is_dir() {
            fs::remove_dir_all(link)?;
        } else {
            fs::remove_file(link)?;
        }
    }
    fs::create_dir_all(link.parent().unwrap_or(Path::new(".")))?;
    std::os::unix::fs::symlink(target, link)
}
