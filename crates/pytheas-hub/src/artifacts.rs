//! Uploaded files: streamed to disk, hashed on the way, moved into place when they are whole.

use std::{
    io,
    path::{Path as FsPath, PathBuf},
    time::Duration,
};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use pytheas_api::ArtifactFile;
use sha1::Digest;
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use crate::reply::ApiError;

/// An upload that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// Where an artifact with this hash lies, below the artifacts' folder.
pub(crate) fn path(sha256: &str) -> Path {
    Path::from(format!("{}/{sha256}", sha256.get(..2).unwrap_or("")))
}

/// All hashes that anybody asks for, of a stream.
#[derive(Default)]
struct Hashes {
    sha1: sha1::Sha1,
    md5: md5::Md5,
    sha256: sha2::Sha256,
    size_bytes: u64,
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.md5.update(bytes);
        self.sha256.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    fn finish(self, filename: &str) -> ArtifactFile {
        ArtifactFile {
            filename: filename.to_owned(),
            size_bytes: self.size_bytes,
            sha1: hex::encode(self.sha1.finalize()),
            md5: hex::encode(self.md5.finalize()),
            sha256: hex::encode(self.sha256.finalize()),
        }
    }
}

/// A file that arrived whole and is on disk, but not in its place; removed unless it is kept.
#[derive(Debug)]
pub(crate) struct Received {
    temp: TempPath,
    /// Name, length, hashes.
    pub(crate) file: ArtifactFile,
}

impl Received {
    /// Moves it to `to`, for good; what was there is replaced.
    pub(crate) async fn keep(self, to: PathBuf) -> io::Result<()> {
        blocking(move || {
            if let Some(folder) = to.parent() {
                pytheas_durable::create_dir_all(folder)?;
            }
            pytheas_durable::move_dir(&self.temp, &to)
        })
        .await
    }

    /// Its bytes, for a store that is no folder.
    pub(crate) async fn bytes(&self) -> io::Result<Bytes> {
        tokio::fs::read(&self.temp).await.map(Bytes::from)
    }
}

/// Streams `body` into a file of `folder`.
pub(crate) async fn receive(
    folder: &FsPath,
    filename: &str,
    body: Body,
    limit_bytes: u64,
) -> Result<Received, ApiError> {
    let (temp, file) = {
        let folder = folder.to_owned();
        blocking(move || {
            pytheas_durable::create_dir_all(&folder)?;
            let (file, temp) = tempfile::NamedTempFile::new_in(&folder)?.into_parts();
            Ok((temp, file))
        })
        .await
        .map_err(|error| full(&error))?
    };
    let mut file = tokio::fs::File::from_std(file);
    let mut hashes = Hashes::default();
    let mut stream = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(IDLE, stream.next())
            .await
            .map_err(|_| {
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the upload stopped")
            })?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "cut-off",
                format!("the upload broke off: {error}"),
            )
        })?;
        hashes.update(&chunk);
        if hashes.size_bytes > limit_bytes {
            let message = format!("the file is larger than the {limit_bytes} bytes allowed");
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                message,
            ));
        }
        file.write_all(&chunk).await.map_err(|error| full(&error))?;
    }
    file.sync_all().await.map_err(|error| full(&error))?;
    Ok(Received {
        temp,
        file: hashes.finish(filename),
    })
}

/// Keeps `bytes` as an artifact.
pub(crate) async fn keep(
    artifacts: &FsPath,
    filename: &str,
    bytes: Vec<u8>,
) -> io::Result<ArtifactFile> {
    let mut hashes = Hashes::default();
    hashes.update(&bytes);
    let file = hashes.finish(filename);
    let to = artifacts.join(path(&file.sha256).as_ref());
    blocking(move || {
        if let Some(folder) = to.parent() {
            pytheas_durable::create_dir_all(folder)?;
        }
        pytheas_durable::replace(&to, &bytes)
    })
    .await?;
    Ok(file)
}

/// A disk that does not take more.
pub(crate) fn full(error: &io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::StorageFull {
        return ApiError::disk_full();
    }
    ApiError::internal(error)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_received_file_is_hashed_and_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let received = receive(dir.path(), "a", Body::from("abc"), 3)
            .await
            .unwrap();
        assert_eq!(received.file.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            received.file.sha1,
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        let to = dir.path().join("x/y");
        received.keep(to.clone()).await.unwrap();
        assert_eq!(std::fs::read(to).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let error = receive(dir.path(), "a", Body::from("abcd"), 3)
            .await
            .unwrap_err();
        assert_eq!(error.code, "too-large");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
