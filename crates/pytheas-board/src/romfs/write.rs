//! Writing ROMFS images: the same files always give the same bytes.
//!
//! Entries stand in the order of their names' bytes, as mpremote writes them; an image without equal
//! files is the same, byte by byte. Content that several files share stands once, in a data record
//! before the tree, and the files point to it.

use std::collections::{BTreeMap, BTreeSet};

use pytheas_release::{
    RelPath, Sha256,
    board::{
        IMAGE_MAX, ImageError, ImageManifest, KIND_FILES, KIND_PADDING, MAGIC, POINTER_BASE,
        assemble, encode_varuint,
    },
};

use super::{
    DEPTH_MAX, ENTRIES_MAX, KIND_DATA, KIND_DIRECTORY, KIND_FILE, KIND_POINTER, RomfsError,
};

/// Shortest content that is shared: a pointer takes up to ten bytes itself.
const SHARE_MIN: usize = 16;

/// A whole plain ROMFS image of these files, without private records.
///
/// # Errors
/// [`RomfsError::Clash`] or [`RomfsError::TooLarge`].
pub fn plain(files: &BTreeMap<RelPath, Vec<u8>>) -> Result<Vec<u8>, RomfsError> {
    let payload = records(files, Vec::new(), 0)?;
    let mut length = encode_varuint(payload.len());
    // The size is even, because nothing could pad it by one byte.
    if (MAGIC.len() + length.len() + payload.len()) % 2 == 1 {
        length.insert(0, 0x80);
    }
    Ok([&MAGIC[..], &length, &payload].concat())
}

/// The body of a board image whose front is `front` bytes long (see
/// [`ImageManifest::front_length`]): the list of full hashes, then the files.
///
/// # Errors
/// As [`plain`].
pub fn body(files: &BTreeMap<RelPath, Vec<u8>>, front: u64) -> Result<Vec<u8>, RomfsError> {
    let base = usize::try_from(front)
        .ok()
        .and_then(|front| front.checked_sub(POINTER_BASE))
        .filter(|base| *base < IMAGE_MAX)
        .ok_or(RomfsError::TooLarge {
            why: "its front has an impossible length",
        })?;
    let mut list = Vec::new();
    for (path, content) in files {
        list.extend(Sha256::of(content).as_bytes());
        list.extend(encode_varuint(path.as_str().len()));
        list.extend(path.as_str().as_bytes());
    }
    let mut start = Vec::new();
    record(&mut start, KIND_FILES, &list);
    let mut body = records(files, start, base)?;
    if body.len() % 2 == 1 {
        record(&mut body, KIND_PADDING, &[0]);
    }
    Ok(body)
}

/// The whole, unsigned board image of these files; binds `manifest` to them, which must be final but
/// for its counter, its front and its body.
///
/// # Errors
/// [`ImageProblem`](crate::romfs::RomfsError) as [`plain`], or the manifest is too long.
pub fn image(
    manifest: &mut ImageManifest,
    files: &BTreeMap<RelPath, Vec<u8>>,
) -> Result<Vec<u8>, RomfsError> {
    let body = body(files, manifest.front_length())?;
    manifest.bind(&body);
    assemble(manifest, &[], &body).map_err(|_: ImageError| RomfsError::TooLarge {
        why: "the image or its manifest is too long",
    })
}

/// One directory: names to what is there.
#[derive(Default)]
struct Folder<'a>(BTreeMap<&'a str, Node<'a>>);

enum Node<'a> {
    Folder(Folder<'a>),
    File(&'a [u8]),
}

/// `start` and then the records of the files; `base` bytes lie between where offsets count from
/// and `start`.
fn records(
    files: &BTreeMap<RelPath, Vec<u8>>,
    start: Vec<u8>,
    base: usize,
) -> Result<Vec<u8>, RomfsError> {
    let mut size = start.len();
    for (path, content) in files {
        size = size.saturating_add(content.len() + path.as_str().len() + 16);
    }
    if size > IMAGE_MAX - (1 << 20) {
        let why = "together they are larger than 255 MiB";
        return Err(RomfsError::TooLarge { why });
    }
    if files.len() > ENTRIES_MAX {
        let why = "there are more than 65536 files";
        return Err(RomfsError::TooLarge { why });
    }
    let mut out = start;
    let mut seen = BTreeSet::new();
    let mut shared: BTreeMap<&[u8], usize> = BTreeMap::new();
    for content in files.values() {
        let content = &content[..];
        if content.len() >= SHARE_MIN && !seen.insert(content) && !shared.contains_key(content) {
            record(&mut out, KIND_DATA, content);
            shared.insert(content, base + out.len() - content.len());
        }
    }
    encode(&tree(files)?, &shared, &mut out);
    Ok(out)
}

fn tree(files: &BTreeMap<RelPath, Vec<u8>>) -> Result<Folder<'_>, RomfsError> {
    let mut root = Folder::default();
    for (path, content) in files {
        let mut folder = &mut root;
        let mut rest = path.as_str();
        let mut depth = 0;
        while let Some((name, below)) = rest.split_once('/') {
            depth += 1;
            if depth > DEPTH_MAX {
                let why = "folders are nested more than 64 deep";
                return Err(RomfsError::TooLarge { why });
            }
            let node = folder
                .0
                .entry(name)
                .or_insert_with(|| Node::Folder(Folder::default()));
            let Node::Folder(next) = node else {
                let length = path.as_str().len() - below.len() - 1;
                let path = super::path(&path.as_str().as_bytes()[..length])?;
                return Err(RomfsError::Clash { path });
            };
            (folder, rest) = (next, below);
        }
        if folder.0.insert(rest, Node::File(content)).is_some() {
            return Err(RomfsError::Clash { path: path.clone() });
        }
    }
    Ok(root)
}

fn encode(folder: &Folder<'_>, shared: &BTreeMap<&[u8], usize>, out: &mut Vec<u8>) {
    for (name, node) in &folder.0 {
        let mut payload = encode_varuint(name.len());
        payload.extend(name.as_bytes());
        match node {
            Node::Folder(below) => {
                encode(below, shared, &mut payload);
                record(out, KIND_DIRECTORY, &payload);
            }
            Node::File(content) => {
                if let Some(offset) = shared.get(content) {
                    let mut pointer = encode_varuint(content.len());
                    pointer.extend(encode_varuint(*offset));
                    record(&mut payload, KIND_POINTER, &pointer);
                } else {
                    record(&mut payload, KIND_DATA, content);
                }
                record(out, KIND_FILE, &payload);
            }
        }
    }
}

fn record(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend(encode_varuint(payload.len()));
    out.extend_from_slice(payload);
}
