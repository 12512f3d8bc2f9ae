//! Finding and fetching uv: from pip, from an index, and not from one that lies.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use pytheas_project::{Connectivity, Environment, UV_VERSION, Uv, UvOrigin};

use crate::support::{environment, shown};

/// An environment with an empty cache and no uv on `PATH`.
fn empty(cache: &Path) -> Environment {
    let path: Vec<PathBuf> = Environment::current()
        .search_path()
        .into_iter()
        .filter(|dir| !dir.join("uv").exists())
        .collect();
    environment()
        .with("PATH", std::env::join_paths(path).unwrap())
        .with("PYTHEAS_CACHE_DIR", cache)
        .without("PYTHEAS_UV")
}

fn find(environment: &Environment) -> Result<Uv, String> {
    Uv::find(environment, Connectivity::Online, &|_| {}).map_err(|error| shown(&error))
}

/// The wheel of uv for this machine, as pip gives it.
fn wheel(dir: &Path) -> (String, Vec<u8>) {
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
        ])
        .arg(dir)
        .arg(format!("uv=={UV_VERSION}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let path = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|child| child.path())
        .next()
        .unwrap();
    (
        path.file_name().unwrap().to_string_lossy().into_owned(),
        std::fs::read(path).unwrap(),
    )
}

/// An index on this machine that has one file of one package.
fn index(file: String, bytes: Vec<u8>, kind: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or("");
            let page = if kind == "text/html" {
                format!("<!DOCTYPE html><a href=\"../../files/{file}#sha256=00\">{file}</a>")
            } else {
                format!(
                    "{{\"files\":[{{\"filename\":\"{file}\",\"url\":\"../../files/{file}\",\"hashes\":{{}}}}]}}"
                )
            };
            let (status, kind, body) = match path {
                "/simple/uv/" => ("200 OK", kind, page.into_bytes()),
                _ if path == format!("/files/{file}") => {
                    ("200 OK", "application/octet-stream", bytes.clone())
                }
                _ => ("404 Not Found", "text/plain", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    format!("{address}/simple")
}

#[test]
fn uv_is_fetched_into_an_empty_cache_by_several_at_once() {
    let cache = tempfile::tempdir().unwrap();
    let environment = empty(cache.path())
        .without("UV_DEFAULT_INDEX")
        .without("UV_INDEX_URL")
        .without("PIP_INDEX_URL");
    let found: Vec<Uv> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| find(&environment).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for uv in found {
        assert_eq!(
            (uv.version.to_string().as_str(), uv.origin),
            (UV_VERSION, UvOrigin::Cache)
        );
        assert!(uv.path.starts_with(cache.path()));
    }
    let left = std::fs::read_dir(cache.path().join("tools"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "scratch folders were left");
    // Found again without a network.
    Uv::find(&environment, Connectivity::Offline, &|_| {}).unwrap();
}

#[test]
fn a_configured_index_is_asked_in_both_its_languages_and_a_changed_wheel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, bytes) = wheel(&dir.path().join("wheel"));
    for kind in ["text/html", "application/vnd.pypi.simple.v1+json"] {
        let environment = empty(&dir.path().join(kind))
            .with("UV_DEFAULT_INDEX", index(file.clone(), bytes.clone(), kind));
        assert_eq!(find(&environment).unwrap().origin, UvOrigin::Cache);
    }
    let mut changed = bytes;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let found = pytheas_release::Sha256::of(&changed).to_string();
    let cache = dir.path().join("cache");
    let environment = empty(&cache).with(
        "UV_DEFAULT_INDEX",
        index(file.clone(), changed, "text/html"),
    );
    let text = find(&environment).unwrap_err();
    assert!(
        text.starts_with(&format!("error: `{file}` from `http://127.0.0.1:")),
        "{text}"
    );
    assert!(
        text.contains(&format!("its SHA-256 is {found}, expected ")),
        "{text}"
    );
    assert_eq!(
        std::fs::read_dir(cache.join("tools")).unwrap().count(),
        0,
        "nothing of it is kept"
    );
}

#[test]
fn without_any_way_to_uv_the_error_says_what_was_tried() {
    let cache = tempfile::tempdir().unwrap();
    let environment = empty(cache.path())
        .with("PATH", "/nowhere")
        .with("HOME", "/nowhere")
        .with("PIP_CONFIG_FILE", "/nowhere");
    let environment = environment
        .without("UV_DEFAULT_INDEX")
        .without("UV_INDEX_URL")
        .without("PIP_INDEX_URL");
    insta::assert_snapshot!(find(&environment).unwrap_err(), @"
    error: uv 0.13.8 is not on this machine and cannot be fetched
      help: tried: no index is configured and there is no Python with pip on `PATH`
    install uv and put it on `PATH`, or name it with `PYTHEAS_UV`; an index other than pip's default is named with `PIP_INDEX_URL`
    ");
    let error = Uv::find(&environment, Connectivity::Offline, &|_| {}).unwrap_err();
    insta::assert_snapshot!(shown(&error), @"
    error: uv 0.13.8 is not on this machine, and the network is not to be used
      help: run once without `--offline`, or name an installed uv with `PYTHEAS_UV`
    ");
    insta::assert_snapshot!(find(&environment.clone().with("PYTHEAS_UV", "/bin/true")).unwrap_err(), @"
    error: `PYTHEAS_UV` names `/bin/true`, which does not run as uv
      cause: `uv --version` was answered with `true (GNU coreutils) 9.1
    Copyright (C) 2022 Free Software Foundation, Inc.
    License GPLv3+: GNU GPL version 3 or later <https://gnu.org/licenses/gpl.html>.
    This is free software: you are free to change and redistribute it.
    There is NO WARRANTY, to the extent permitted by law.

    Written by Jim Meyering.`
      help: set it to the path of a uv program, or unset it
    ");
    insta::assert_snapshot!(find(&environment.with("UV_DEFAULT_INDEX", "http://me:secret@127.0.0.1:9/simple")).unwrap_err(), @"
    error: cannot fetch uv 0.13.8
      cause: cannot fetch `http://127.0.0.1:9/simple/uv/`
      cause: io: Connection refused (os error 111)
      help: the index is configured by UV_DEFAULT_INDEX; check the network, or name an installed uv with `PYTHEAS_UV`
    ");
}
