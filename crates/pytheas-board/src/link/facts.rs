//! What a board is: asked once, in one round trip, before anything is sent to it.

use serde::{Deserialize, Serialize};

use super::{
    Board, LinkError,
    frames::{slim, unpacking},
};
use crate::mpy::{Arch, BoardMpy};

const QUESTION: &str = include_str!("facts.py");
/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Where it is mounted.
    pub path: String,
    /// Its class, such as `VfsLfs2`; empty when the firmware does not tell.
    pub kind: String,
    /// Its block, in bytes: what the smallest file takes.
    pub block: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// What is free, in bytes.
    pub free: u64,
    /// Longest name, in bytes.
    pub name_max: u64,
}

/// A partition for ROMFS images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RomPartition {
    /// Its number.
    pub number: u32,
    /// Its size, in bytes.
    pub size: u64,
    /// What is erased at once, in bytes; 0: only all of it.
    pub block: u64,
    /// A block device (ESP32) rather than memory.
    pub device: bool,
}

/// What a board says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `micropython`, or another implementation.
    pub name: String,
    /// MicroPython's version, such as `1.25.0`.
    pub version: String,
    /// Its firmware's own words: version, commit and date.
    pub build: String,
    /// The port, such as `rp2` or `esp32`; in JSON `sys_platform`.
    #[serde(rename = "sys_platform", alias = "platform")]
    pub platform: String,
    /// Chip and board, such as `Raspberry Pi Pico with RP2040`.
    pub machine: String,
    /// Version of the `.mpy` files it takes; 0: none.
    pub mpy: u8,
    /// `sys.implementation._mpy`: version, sub-version and architecture in one number.
    pub mpy_value: u32,
    /// Architecture of native code, by mpy-cross's name; `none` when it takes none.
    pub arch: String,
    /// Its own number, in hexadecimal; empty when it has none.
    pub id: String,
    /// Free heap after a collection, in bytes.
    pub heap_free: u64,
    /// Heap in all, in bytes.
    pub heap: u64,
    /// Whether programs can read bytes from the line.
    pub stream: bool,
    /// Whether it decompresses deflate.
    pub deflate: bool,
    /// Whether it has SHA-256.
    pub sha256: bool,
    /// Whether it has TLS.
    pub tls: bool,
    /// Its file systems.
    pub file_systems: Vec<FileSystem>,
    /// Its partitions for ROMFS images.
    pub rom: Vec<RomPartition>,
    /// It has been set up for signed images (`pytheas board setup`).
    pub prepared: bool,
    /// It starts images that `pytheas board deploy` put into its ROMFS partitions.
    pub starter: bool,
    /// It has a `main.py`.
    pub has_main: bool,
}

impl Facts {
    /// Asks the board.
    ///
    /// # Errors
    /// [`LinkError`] when it does not answer.
    pub fn ask(board: &mut Board) -> Result<Self, LinkError> {
        let question = slim(QUESTION);
        // Most boards inflate; one that cannot, or whose line is not for all bytes, is asked once more.
        let small = unpacking(&question);
        let answer = match board.exec(small.as_deref().unwrap_or(question.as_bytes())) {
            Err(LinkError::Raised { .. }) => board.exec(&question)?,
            answer => answer?,
        };
        let facts = Self::read(&String::from_utf8_lossy(&answer));
        if facts.name.is_empty() {
            return Err(board.unexpected(&answer));
        }
        Ok(facts)
    }

    /// Reads the answer; what does not parse is passed over.
    fn read(text: &str) -> Self {
        let mut facts = Self::default();
        let mut has_boot = false;
        let mut config = false;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else {
                continue;
            };
            let words: Vec<_> = value.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match key {
                "name" => facts.name = value.into(),
                "version" => facts.version = value.into(),
                "build" => facts.build = value.into(),
                "platform" => facts.platform = value.into(),
                "machine" => facts.machine = value.into(),
                "id" => facts.id = value.into(),
                "stream" => facts.stream = value == "1",
                "mpy" => {
                    facts.mpy_value = number(0).and_then(|n| n.try_into().ok()).unwrap_or(0);
                    facts.mpy = (facts.mpy_value & 0xff) as u8;
                    let arch = facts.board_mpy().and_then(|board| board.arch);
                    facts.arch = arch.map_or("none", Arch::name).to_owned();
                }
                "heap" => {
                    facts.heap_free = number(0).unwrap_or(0);
                    facts.heap = facts.heap_free + number(1).unwrap_or(0);
                }
                "has" => match value {
                    "deflate" => facts.deflate = true,
                    "sha256" => facts.sha256 = true,
                    "ssl" => facts.tls = true,
                    _ => {}
                },
                "file" => match value {
                    "/pytheas/config.json" => config = true,
                    "/.pytheas-rom" => facts.starter = true,
                    "/main.py" => facts.has_main = true,
                    "pytheas" => has_boot = true,
                    _ => {}
                },
                "fs" => {
                    let path = value.splitn(6, ' ').nth(5);
                    if let (Some(path), Some(kind)) = (path, words.get(4)) {
                        facts.file_systems.push(FileSystem {
                            path: path.into(),
                            kind: if *kind == "-" { "" } else { kind }.to_owned(),
                            block: number(0).unwrap_or(0),
                            size: number(1).unwrap_or(0),
                            free: number(2).unwrap_or(0),
                            name_max: number(3).unwrap_or(0),
                        });
                    }
                }
                "rom" => facts.rom.push(RomPartition {
                    number: number(0).and_then(|n| n.try_into().ok()).unwrap_or(0),
                    size: number(1).unwrap_or(0),
                    block: number(2).unwrap_or(0),
                    device: words.get(3) == Some(&"device"),
                }),
                _ => {}
            }
        }
        facts.prepared = config && has_boot;
        facts
    }

    /// What it says of the `.mpy` files it loads; none when it loads none.
    pub fn board_mpy(&self) -> Option<BoardMpy> {
        BoardMpy::from_value(self.mpy_value).filter(|board| board.version > 0)
    }

    /// The platform its releases are built for, such as `micropython-armv6m`.
    pub fn release_platform(&self) -> String {
        match self.arch.as_str() {
            "none" | "" => "micropython-any".into(),
            arch => format!("micropython-{arch}"),
        }
    }

    /// The file system that holds `path`.
    pub fn file_system(&self, path: &str) -> Option<&FileSystem> {
        let inside = |fs: &&FileSystem| {
            let root = fs.path.trim_end_matches('/');
            path == root
                || path
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        self.file_systems
            .iter()
            .filter(inside)
            .max_by_key(|fs| fs.path.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_board_is_read() {
        let facts = Facts::read(
            "name micropython\nversion 1.25.0\nbuild 3.4.0; MicroPython v1.25.0\nplatform qemu\n\
             mpy 6918\nmachine mps2 with Cortex-M3\nstream 1\nheap 130000 13360\nhas deflate\n\
             has sha256\nfs 512 4194304 4190208 255 VfsLfs2 /\nfs 1 26 0 32767 VfsRom /rom x\n\
             rom 0 4194304 4096 memory\nrom 1 1048576 4096 device\nnoise\nfile /main.py\n",
        );
        assert_eq!((facts.mpy, facts.arch.as_str()), (6, "armv7em"));
        assert_eq!(facts.board_mpy().unwrap().sub_version, 3);
        assert_eq!(facts.release_platform(), "micropython-armv7em");
        assert_eq!((facts.heap, facts.heap_free), (143_360, 130_000));
        assert_eq!(facts.file_system("/a/b").unwrap().kind, "VfsLfs2");
        assert_eq!(facts.file_system("/rom x/b").unwrap().kind, "VfsRom");
        assert_eq!(facts.file_system("/rom xy").unwrap().kind, "VfsLfs2");
        assert!(facts.rom[1].device && !facts.rom[0].device && facts.has_main);
        assert!(!facts.prepared && facts.deflate && facts.sha256 && facts.stream);
    }
}
