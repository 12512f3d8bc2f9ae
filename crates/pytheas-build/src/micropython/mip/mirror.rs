//! A mirror: a folder that is an index of mip's format with every locked package in it, those of the
//! Python package index and of addresses, too. `index = "DIR"` or `PYTHEAS_MIP_INDEX=DIR` uses it,
//! without a network.

use std::{collections::BTreeMap, path::Path};

use pytheas_project::Project;
use pytheas_release::Sha256;
use serde_json::json;

use super::{
    MipError, MipLock, MipOptions, error::io_error, fetch::Fetcher, index::file_place, install,
    lock::From, locking::index_place, marker, resolve::check_path,
};

/// Writes the packages of `lock` into `dir`; folders of this machine are left out. Gives their
/// number.
///
/// # Errors
/// See [`MipError`].
pub fn mirror(
    project: &Project,
    lock: &MipLock,
    options: &MipOptions,
    dir: &Path,
) -> Result<usize, MipError> {
    let fetcher = Fetcher::new(&options.environment, options.connectivity, &project.dir);
    let index = index_place(project, &options.environment);
    let put = |path: String, bytes: &[u8]| {
        let file = dir.join(path);
        let parent = file.parent().unwrap_or(dir);
        pytheas_durable::create_dir_all(parent).map_err(io_error("make", parent))?;
        pytheas_durable::replace(&file, bytes).map_err(io_error("write", &file))
    };
    let document = |value: &serde_json::Value| {
        let mut bytes = value.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    };
    let mut listed: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for package in &lock.packages {
        let marker = package.marker.as_deref();
        if package.from == From::Folder || marker.is_some_and(|m| !marker::applies(m, None)) {
            continue;
        }
        // An address is kept by the name of its manifest's folder.
        let name = match package.from {
            From::Url => short_name(&package.name),
            _ => package.name.clone(),
        };
        let mut hashes = Vec::new();
        for (path, bytes) in install::of(package, project, index.as_deref(), &fetcher)? {
            // All digits: this index has room for them.
            let digits = Sha256::of(&bytes).to_string();
            let Some(place) = file_place(&digits) else {
                continue;
            };
            put(place, &bytes)?;
            // Files of a locked package are looked for by the place in the lock.
            if let Some(locked) = package.files.iter().find(|file| file.path == path)
                && package.from == From::Mip
                && locked.url.starts_with("file/")
                && check_path(&package.name, &locked.url).is_ok()
            {
                put(locked.url.clone(), &bytes)?;
            }
            hashes.push(json!([path, digits]));
        }
        if package.from == From::Pypi {
            for file in &package.files {
                let places = [file.url.clone()];
                let bytes = fetcher.checked(&package.name, &file.path, &places, file.sha256)?;
                put(format!("archive/{}", file.path), &bytes)?;
            }
        }
        let needs: Vec<_> = package
            .needs
            .iter()
            .map(|need| match lock.package(need) {
                Some(other) if other.from == From::Url => json!([short_name(need), "latest"]),
                Some(other) if !other.version.is_empty() => json!([need, other.version]),
                _ => json!([need, "latest"]),
            })
            .collect();
        let manifest = document(&json!({
            "v": 1, "hashes": hashes, "urls": [], "deps": needs, "version": package.version,
        }));
        put(format!("package/py/{name}/latest.json"), &manifest)?;
        let mut versions = Vec::new();
        if !package.version.is_empty() {
            put(
                format!("package/py/{name}/{}.json", package.version),
                &manifest,
            )?;
            versions.push(package.version.clone());
        }
        let entry = json!({
            "name": name, "version": package.version, "author": "", "description": "",
            "license": "", "versions": {"py": versions},
        });
        listed.insert(name, entry);
    }
    let count = listed.len();
    let packages: Vec<_> = listed.into_values().collect();
    put(
        "index.json".to_owned(),
        &document(&json!({"v": 2, "updated": 0, "packages": packages})),
    )?;
    Ok(count)
}

fn short_name(url: &str) -> String {
    let plain = url
        .trim_end_matches("/package.json")
        .trim_end_matches(".mpy")
        .trim_end_matches(".py");
    plain.rsplit('/').next().unwrap_or(plain).to_owned()
}
