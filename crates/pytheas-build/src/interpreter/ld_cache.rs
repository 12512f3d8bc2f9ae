//! Finding shared libraries as ld.so does (ld.so(8)): RPATH or RUNPATH, `/etc/ld.so.cache`, the
//! default folders. `LD_LIBRARY_PATH` is left out: a bundle must not depend on it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// The header of the cache's format since glibc 2.2 (`struct cache_file_new`); older tools put
/// their own cache in front of it.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// The libraries of this machine by name.
#[derive(Debug, Default)]
pub(super) struct LdCache {
    by_name: HashMap<String, Vec<PathBuf>>,
}

impl LdCache {
    /// Reads `/etc/ld.so.cache`; empty where there is none (musl).
    pub(super) fn read() -> Self {
        std::fs::read("/etc/ld.so.cache")
            .map(|bytes| Self::parse(&bytes))
            .unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Self {
        let Some(start) = bytes
            .windows(MAGIC.len())
            .position(|window| window == MAGIC)
        else {
            return Self::default();
        };
        let bytes = &bytes[start..];
        let number = |at: usize| -> Option<usize> {
            let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_ne_bytes(word)).ok()
        };
        let text = |at: usize| -> Option<String> {
            let tail = bytes.get(at..)?;
            let end = tail.iter().position(|byte| *byte == 0)?;
            String::from_utf8(tail[..end].to_vec()).ok()
        };
        let mut by_name: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for index in 0..number(MAGIC.len()).unwrap_or(0) {
            let entry = HEADER_BYTES + index * ENTRY_BYTES;
            let (Some(key), Some(value)) = (number(entry + 4), number(entry + 8)) else {
                break;
            };
            if let (Some(name), Some(path)) = (text(key), text(value)) {
                by_name.entry(name).or_default().push(PathBuf::from(path));
            }
        }
        Self { by_name }
    }

    /// The file that `name`, needed by the file `by`, stands for; `fits` refuses libraries for
    /// another CPU.
    pub(super) fn find(
        &self,
        name: &str,
        by: &Path,
        search: &[String],
        fits: impl Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        if name.contains('/') {
            let path = PathBuf::from(expanded(name, by));
            return fits(&path).then_some(path);
        }
        let own = search
            .iter()
            .map(|dir| PathBuf::from(expanded(dir, by)).join(name));
        let cached = self.by_name.get(name).into_iter().flatten().cloned();
        let arch = std::env::consts::ARCH;
        let default = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]
            .map(PathBuf::from)
            .into_iter();
        let multiarch = ["/lib", "/usr/lib"]
            .map(|dir| PathBuf::from(format!("{dir}/{arch}-linux-gnu")))
            .into_iter();
        own.chain(cached)
            .chain(multiarch.chain(default).map(|dir| dir.join(name)))
            .find(|path| path.is_file() && fits(path))
    }
}

/// `$ORIGIN` replaced by the folder of `by`.
fn expanded(text: &str, by: &Path) -> String {
    let origin = by.parent().unwrap_or(Path::new("/")).display().to_string();
    text.replace("$ORIGIN", &origin)
        .replace("${ORIGIN}", &origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_cache_knows_its_c_library() {
        let cache = LdCache::read();
        if cache.by_name.is_empty() {
            testkit::skip("this machine has no /etc/ld.so.cache");
            return;
        }
        let found = cache
            .find("libc.so.6", Path::new("/bin/sh"), &[], |_| true)
            .unwrap();
        assert!(found.is_file(), "{found:?}");
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_cache_is_read_without_a_panic(tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            LdCache::parse(&[MAGIC, &tail].concat());
        }
    }
}
