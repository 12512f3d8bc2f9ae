//! A board on a serial port or behind an address, through the board link. Its flash is not touched:
//! the files are an image in its memory, mounted for the run.

use std::{
    collections::BTreeMap,
    sync::mpsc::{self, Receiver},
    thread::JoinHandle,
};

use pytheas_board::{
    link::{Address, Board, Facts, LinkError, Stop, frames::Frames, repl::Options},
    mpy::Arch,
};
use pytheas_project::{Connectivity, Environment};
use pytheas_release::RelPath;

use super::{closure, error::OnError};

/// Where the image is mounted.
pub(super) const ROOT: &str = "/_pytheas";

/// Takes the image; a mount of an earlier run goes first.
const RECEIVE: &str = r#"
import gc,vfs
_pi=None
try:
    vfs.umount("@ROOT@")
except OSError:
    pass
gc.collect()
_pi=bytearray(@SIZE@)
_pn=0
def _pw(b):
    global _pn
    _pi[_pn:_pn+len(b)]=b
    _pn+=len(b)
"#;

/// Mounts it; modules of the same names that are loaded already would hide it.
const MOUNT: &str = r#"
import sys,vfs
vfs.mount(vfs.VfsRom(memoryview(_pi)),"@ROOT@")
for _pn in list(sys.modules):
    if _pn.split(".")[0] in @NAMES@:
        del sys.modules[_pn]
"#;

/// A running program on a board.
#[derive(Debug)]
pub(super) struct Running {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Sends the files and starts `code`; what it prints comes through the receiver, which ends with
    /// it.
    pub(super) fn start(
        text: &str,
        files: &BTreeMap<RelPath, Vec<u8>>,
        code: &str,
        environment: &Environment,
        connectivity: Connectivity,
    ) -> Result<(Self, Receiver<Vec<u8>>), OnError> {
        let address: Address = text.parse().map_err(|source| OnError::Address { source })?;
        let stop = Stop::default();
        let options = Options {
            stop: stop.clone(),
            ..Options::default()
        };
        let link = |source: LinkError| OnError::Link { source };
        let mut board = Board::open(&address, options).map_err(link)?;
        let facts = Facts::ask(&mut board).map_err(link)?;
        let arch = Arch::from_name(&facts.arch);
        let compiled = closure::compiled(files, arch, environment, connectivity)?;
        let image =
            pytheas_board::romfs::plain(&compiled).map_err(|source| OnError::Image { source })?;
        let receive = RECEIVE
            .replace("@ROOT@", ROOT)
            .replace("@SIZE@", &image.len().to_string());
        let sent = Frames::begin(&mut board, &facts, &receive).and_then(|mut frames| {
            frames.data(&image, &mut |_| {})?;
            frames.end()
        });
        match sent {
            Err(error)
                if error
                    .exception()
                    .is_some_and(|text| text.contains("MemoryError")) =>
            {
                return Err(OnError::Memory {
                    place: text.to_owned(),
                    needed: image.len(),
                    free: facts.heap_free,
                });
            }
            other => other.map_err(link)?,
        }
        let mut names: Vec<&str> = files
            .keys()
            .filter_map(|path| path.as_str().split(['/', '.']).next())
            .collect();
        names.dedup();
        let mount = MOUNT
            .replace("@ROOT@", ROOT)
            .replace("@NAMES@", &serde_json::json!(names).to_string());
        board.exec(&mount).map_err(link)?;
        let (sender, bytes) = mpsc::channel();
        let code = code.to_owned();
        let thread = std::thread::spawn(move || {
            let ended = board.run(&code, None, &mut |bytes| {
                let _nobody_listens = sender.send(bytes.to_vec());
            });
            if let Err(error) = ended {
                let text = error
                    .exception()
                    .map_or_else(|| error.to_string(), str::to_owned);
                let _nobody_listens = sender.send(format!("\n{text}\n").into_bytes());
            }
        });
        let running = Self {
            stop,
            thread: Some(thread),
        };
        Ok((running, bytes))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop
            .0
            .store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The board is let go there: a program that still runs is interrupted.
            let _panicked = thread.join();
        }
    }
}
