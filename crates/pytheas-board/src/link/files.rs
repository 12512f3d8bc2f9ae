//! The files of a board, one at a time: list, read, write, remove.

use base64::{Engine, engine::general_purpose::STANDARD};
use pytheas_release::Sha256;
use serde::Serialize;

use super::{
    Board, Facts, LinkError,
    frames::{Frames, quote, slim},
};

/// The helpers on the board that work on files.
pub const HELPERS: &str = include_str!("files.py");

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its whole path.
    pub path: String,
    /// A folder.
    pub folder: bool,
    /// Its size, in bytes; 0 for folders.
    pub size: u64,
}

/// The entries of the folder `path`, sorted; those of folders inside it, too, if `deep`. A file is
/// its own only entry.
///
/// # Errors
/// [`LinkError::Raised`] with `OSError` when there is no such path.
pub fn list(board: &mut Board, path: &str, deep: bool) -> Result<Vec<Entry>, LinkError> {
    let program = format!(
        "import os
def w(p):
 for e in os.ilistdir(p or '/'):
  n=p+'/'+e[0];d=e[1]&0x4000
  print('d' if d else 'f',e[3] if len(e)>3 and not d else 0,n,end='\\0')
  if d and {deep}: w(n)
p={path}
s=os.stat(p or '/')
if s[0]&0x4000: w(p)
else: print('f',s[6],p,end='\\0')
del w
",
        deep = if deep { "1" } else { "0" },
        path = quote(path.trim_end_matches('/')),
    );
    let answer = board.exec(&program)?;
    // Names may have line feeds, which the board's console makes two characters of.
    let text = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
    let mut entries: Vec<_> = text
        .split('\0')
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (kind, size, path) = (words.next()?, words.next()?, words.next()?);
            Some(Entry {
                folder: kind == "d",
                size: size.parse().ok()?,
                path: path.to_owned(),
            })
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Whether there is a file or folder `path`.
///
/// # Errors
/// [`LinkError`] when the board does not answer.
pub fn exists(board: &mut Board, path: &str) -> Result<bool, LinkError> {
    let path = path.trim_end_matches('/');
    let program = format!(
        "import os\ntry:\n os.stat({})\n print(1)\nexcept OSError:\n print(0)",
        quote(if path.is_empty() { "/" } else { path })
    );
    Ok(board.exec(&program)?.starts_with(b"1"))
}

/// The content of the file `path`; `got` is told how many bytes have come.
///
/// # Errors
/// [`LinkError::Raised`] with `OSError` when there is no such file.
pub fn read(
    board: &mut Board,
    path: &str,
    got: &mut dyn FnMut(usize),
) -> Result<Vec<u8>, LinkError> {
    let program = format!(
        "import binascii
with open({},'rb') as f:
 while 1:
  b=f.read(768)
  if not b: break
  print(binascii.b2a_base64(b).decode(),end='')
",
        quote(path)
    );
    let mut text = Vec::new();
    board.run(&program, Some(super::repl::ANSWER), &mut |bytes| {
        text.extend(bytes);
        got(text.len() * 3 / 4);
    })?;
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let part = STANDARD.decode(line);
        out.extend(part.map_err(|_| board.unexpected(line))?);
    }
    Ok(out)
}

/// Replaces the file `path`: written beside it, read back and compared by SHA-256, then renamed.
/// Folders on the way are made.
///
/// # Errors
/// [`LinkError::Raised`] with what the board's file system says.
pub fn write(
    board: &mut Board,
    facts: &Facts,
    path: &str,
    bytes: &[u8],
    sent: &mut dyn FnMut(usize),
) -> Result<(), LinkError> {
    let beside = format!("{path}.~");
    let hash = if facts.sha256 {
        Sha256::of(bytes).to_string()
    } else {
        String::new()
    };
    let mut written = || {
        let mut frames = Frames::with(board, facts, &[HELPERS])?;
        frames.exec(&format!("_pn({})", quote(&beside)))?;
        frames.data(bytes, sent)?;
        frames.exec(&format!("_pc({},{},'{hash}')", quote(&beside), quote(path)))?;
        frames.end()
    };
    let done = written();
    if let Err(LinkError::Raised { .. }) = done {
        // What did not fit is not to fill the board.
        let program = format!(
            "_px()\ntry:\n os.remove({})\nexcept OSError: pass",
            quote(&beside)
        );
        let _not_there = board.exec(&program);
    }
    done
}

/// Removes a file, or a folder with all that is in it if `deep`.
///
/// # Errors
/// [`LinkError::Raised`] with what the board's file system says.
pub fn remove(board: &mut Board, path: &str, deep: bool) -> Result<(), LinkError> {
    // What is mounted below `/` is not of its file system.
    let program = "import os
try:
    import vfs
    m = [e[1] for e in vfs.mount()]
except Exception:
    m = []
def r(p,t):
    if not os.stat(p)[0] & 0x4000:
        os.remove(p)
        return
    if t:
        for e in os.ilistdir(p):
            n = p.rstrip('/') + '/' + e[0]
            if n not in m:
                r(n, t)
    if p != '/':
        os.rmdir(p)
    elif not t:
        raise OSError(39)
";
    let deep = if deep { "1" } else { "0" };
    board
        .exec(&format!(
            "{}r({},{deep})\ndel r,m",
            slim(program),
            quote(path)
        ))
        .map(drop)
}

/// Makes a folder, and those it lies in.
///
/// # Errors
/// [`LinkError::Raised`] with what the board's file system says.
pub fn make_folder(board: &mut Board, path: &str) -> Result<(), LinkError> {
    let path = path.trim_end_matches('/');
    let program = format!(
        "{}_pm({})\nimport os\nif not os.stat({})[0]&0x4000: raise OSError(20)",
        slim(HELPERS),
        quote(&format!("{path}/")),
        quote(if path.is_empty() { "/" } else { path }),
    );
    board.exec(&program).map(drop)
}
