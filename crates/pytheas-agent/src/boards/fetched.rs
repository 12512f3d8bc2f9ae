//! The signed image of a release for boards, kept beside its slot.
//!
//! ```text
//! images/<tree>.romfs     the signed image
//! ```
//! It differs from `app.romfs` of the release's tree in its front only, so the front is all that is
//! fetched when the tree is here; its hash stands in the release document.

use std::{fs, io::Read as _};

use pytheas_release::{BlobRef, Entry, Sha256, Tree, TreeId, board};
use pytheas_repo::{client::Client, fetch::Fetch};
use pytheas_update::{Failure, Job, Reason};

use super::Image;
use crate::{
    content,
    failure::{Trouble, content_trouble, device_failure, metadata_trouble},
    paths::StateDir,
};

/// The image of the release `tree`.
///
/// # Errors
/// It is not there, or not an image.
pub(crate) fn read(dir: &StateDir, tree: TreeId) -> Result<Image, Failure> {
    let path = dir.image(tree);
    let bytes = fs::read(&path).map_err(|error| device_failure("read", &path, &error))?;
    Image::new(bytes)
}

/// Makes the image of `job`'s release lie on the device; its tree has been fetched.
///
/// # Errors
/// See [`content::fetch`].
pub(crate) fn fetch(dir: &StateDir, job: &Job, transport: &mut dyn Fetch) -> Result<(), Trouble> {
    let path = dir.image(job.to.tree);
    let mut client = Client::open(dir.device(), transport).map_err(metadata_trouble)?;
    let release = content::release(dir, job, &mut client)?;
    let Some(blob) = release.board.map(|board| board.image) else {
        return Err(without_image(&release.reference().to_string()).into());
    };
    if fs::read(&path).is_ok_and(|bytes| Sha256::of(&bytes) == blob.sha256) {
        return Ok(());
    }
    let write = |error| Trouble::Failed(device_failure("write", &path, &error));
    let bytes = match by_front(dir, job.to.tree, &blob, &mut client) {
        Some(bytes) => bytes,
        None => {
            let file = client.blob(&blob, &mut |_| {}).map_err(content_trouble)?;
            fs::read(&file).map_err(|error| device_failure("read", &file, &error))?
        }
    };
    if let Some(folder) = path.parent() {
        pytheas_durable::create_dir_all(folder).map_err(write)?;
    }
    pytheas_durable::replace(&path, &bytes).map_err(write)?;
    // What stays costs space only, until the next download is tidied away.
    let _gone_already = client.forget_blob(&blob);
    Ok(())
}

/// A release for boards that no board can take.
pub(crate) fn without_image(release: &str) -> Failure {
    let message = format!(
        "`{release}` has no signed image for boards\n\
         help: publish it again as a new version with this version of pytheas"
    );
    Failure::new(Reason::Content, message)
}

/// The signed image from its front and the tree's own image; none when that does not give it.
fn by_front(
    dir: &StateDir,
    tree: TreeId,
    blob: &BlobRef,
    client: &mut Client<'_>,
) -> Option<Vec<u8>> {
    let document = [dir.fetched_tree(tree), dir.slot_document(tree)];
    let document = document.iter().find_map(|path| {
        let found = Tree::parse(&fs::read(path).ok()?).ok()?;
        (found.id() == tree).then_some(found)
    })?;
    let (path, entry) = document
        .iter()
        .find(|(path, _)| path.as_str() == "app.romfs")?;
    let Entry::File { sha256, .. } = entry else {
        return None;
    };
    let object = fs::read(dir.object(tree, *sha256));
    let unsigned = object
        .or_else(|_| fs::read(path.under(&dir.slot(tree))))
        .ok()?;
    let body = board::read(&unsigned).ok()?.body;
    let front = blob.size_bytes.checked_sub(body.len() as u64)?;
    let mut image = Vec::new();
    let reader = client.blob_from(blob, 0).ok()?;
    reader.take(front).read_to_end(&mut image).ok()?;
    image.extend_from_slice(body);
    (Sha256::of(&image) == blob.sha256).then_some(image)
}
