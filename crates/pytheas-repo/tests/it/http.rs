//! Publishing over HTTP, to a server that keeps the rules a hub keeps.

use std::{fs, path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use pytheas_repo::{
    fetch::FolderFetch,
    publish::{Options, PublishError},
    repository::RepositoryError,
    store::{Store, StoreError},
};

use crate::world::{PLATFORM, World, noise, now, shown};

/// A server for the folder, on a thread of its own; its address.
fn serve(folder: PathBuf) -> String {
    let (address, announced) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address
                .send(format!("http://{}/repo", listener.local_addr().unwrap()))
                .unwrap();
            let app = Router::new()
                .route("/repo/{*path}", any(answer))
                .layer(axum::extract::DefaultBodyLimit::disable())
                .with_state(Arc::new(folder));
            axum::serve(listener, app).await.unwrap();
        });
    });
    announced.recv().unwrap()
}

async fn answer(
    State(folder): State<Arc<PathBuf>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let file = folder.join(&path);
    match method {
        Method::PUT => {
            if headers
                .get("authorization")
                .is_none_or(|value| value != "Bearer right")
            {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            if !path.ends_with("timestamp.json") && fs::read(&file).is_ok_and(|old| old != body) {
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, body).unwrap();
            StatusCode::CREATED.into_response()
        }
        Method::GET | Method::HEAD => match fs::read(&file) {
            Err(_) => StatusCode::NOT_FOUND.into_response(),
            Ok(bytes) => match headers.get("range") {
                None => bytes.into_response(),
                Some(range) => {
                    let (start, end) = range
                        .to_str()
                        .unwrap()
                        .strip_prefix("bytes=")
                        .unwrap()
                        .split_once('-')
                        .unwrap();
                    let (start, end): (usize, usize) =
                        (start.parse().unwrap(), end.parse().unwrap());
                    let range = format!("bytes {start}-{end}/{}", bytes.len());
                    let part = bytes[start..=end].to_vec();
                    (
                        StatusCode::PARTIAL_CONTENT,
                        [("content-range", range)],
                        part,
                    )
                        .into_response()
                }
            },
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

#[test]
fn a_hub_is_published_to_by_http() {
    let world = World::new();
    let url = serve(world.repo());
    // With a final slash, as people copy it.
    let store = Store::open(&format!("{url}/"), Some("right")).unwrap();
    let library = noise(3, 100_000);
    for version in ["1.0.0", "1.1.0"] {
        let dir = world.tree(
            version,
            PLATFORM,
            &[("v", version.as_bytes()), ("lib", &library)],
        );
        let published = world
            .publish_dir(&store, &dir, &Options::at(now()))
            .unwrap();
        assert_eq!(published.deltas.len(), usize::from(version == "1.1.0"));
        assert!(
            world
                .publish_dir(&store, &dir, &Options::at(now()))
                .unwrap()
                .already
        );
    }
    let files = world
        .device("d")
        .install(&mut FolderFetch(world.repo()), "1.1.0")
        .unwrap();
    assert_eq!((&files["v"][..], &files["lib"]), (&b"1.1.0"[..], &library));
}

#[test]
fn a_wrong_token_is_told() {
    let world = World::new();
    let url = serve(world.repo());
    for token in [None, Some("wrong")] {
        let store = Store::open(&url, token).unwrap();
        let dir = world.tree("1.0.0", PLATFORM, &[]);
        let error = world
            .publish_dir(&store, &dir, &Options::at(now()))
            .unwrap_err();
        assert!(
            matches!(
                error,
                PublishError::Store(StoreError::Forbidden { .. })
                    | PublishError::Repository(RepositoryError::Store(
                        StoreError::Forbidden { .. }
                    ))
            ),
            "{error:?}"
        );
        let text = shown(error);
        assert!(
            text.contains(&format!("`{url}` does not allow to write")),
            "{text}"
        );
        assert!(text.contains("the role `publisher`"), "{text}");
    }
}

#[test]
fn a_web_server_that_only_serves_files_is_told_from_a_hub() {
    let (address, announced) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let only_get = axum::routing::get(|| async { StatusCode::NOT_FOUND });
            let app = Router::new().route("/{*path}", only_get);
            axum::serve(listener, app).await.unwrap();
        });
    });
    let url = format!("http://{}/repo", announced.recv().unwrap());
    let world = World::new();
    let dir = world.tree("1.0.0", PLATFORM, &[]);
    let store = Store::open(&url, None).unwrap();
    let error = world.publish_dir(&store, &dir, &Options::at(now()));
    let text = shown(error.unwrap_err()).replace(&url, "URL");
    insta::assert_snapshot!(text, @"
    error: `URL` serves a repository and takes nothing
      help: publish to the folder that this server serves, to its bucket, or to a hub's `/repo`; a plain web server's folder may be filled with `rsync` afterwards, `metadata/timestamp.json` last
    ");
}
