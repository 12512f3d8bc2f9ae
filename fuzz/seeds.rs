//! What the fuzz targets begin with: each writes its own seeds, made of real files by the code under
//! test, into the folder that `PYTHEAS_FUZZ_SEEDS` names (`cargo xtask fuzz` sets it). So no corpus is
//! kept in the repository, and none is ever out of date.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Writes the seeds, if somebody asks for them. libFuzzer reads its corpus after this.
pub fn write(make: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("PYTHEAS_FUZZ_SEEDS").map(PathBuf::from) else {
        return;
    };
    for (number, seed) in make().iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("the corpus is writable");
    }
}

/// The files below `folder` of the repository that end in `ending`: their paths below it, and contents.
pub fn files(folder: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().is_some_and(|path| path.ends_with(ending))
                && let (Ok(below), Ok(bytes)) = (path.strip_prefix(&root), fs::read(&path))
            {
                found.push((below.to_string_lossy().into_owned(), bytes));
            }
        }
    }
    found.sort();
    found
}
