//! The first stage of a one-file bundle: unpacks the tree that lies behind it in the same file,
//! once, and starts it. Compiled into the launcher with `--cfg one_file` (see `main.rs`).
//!
//! The file, all numbers little endian:
//!
//! ```text
//! this program
//! frame…            u32 packed length, u32 unpacked length, one Zstandard frame (with checksum)
//! trailer           256 bytes:
//!     0  "pytheas-one-file"
//!    16  u64 format = 1
//!    24  u64 where the first frame starts
//!    32  u64 size of all files in bytes
//!    40  u64 number of frames
//!    48  tree id, 64 hexadecimal digits
//!   112  what is started, relative to the tree (`bin/app`), filled up with NUL
//!   240  u64 0
//!   248  u64 XXH64 of the bytes before
//! ```
//!
//! The first frame is the index, one record per entry, folders before what lies in them:
//! kind (`d` folder, `f` file, `x` program, `l` link), u64 size, path, NUL, for a link target, NUL.
//! The others, joined, are the contents of all files in the index's order; each but the last
//! unpacks to the same size.
//!
//! The tree lies in `DIR/<tree id>`, where DIR is `PYTHEAS_UNPACK_DIR`, else the first that can be
//! used of `$XDG_CACHE_HOME/pytheas/run`, `$HOME/.cache/pytheas/run`, `$TMPDIR/pytheas-<uid>`,
//! `/var/tmp/pytheas-<uid>`, `/tmp/pytheas-<uid>`. A folder that other users can write to is not
//! used. Unpacking happens in `DIR/<tree id>.tmp` under a lock on `DIR/<tree id>.lock`; the folder
//! is synced and renamed when it is whole, so that concurrent first starts, `kill -9` and power
//! cuts leave the tree whole or absent. What a killed start left is written over by the next.

mod format;
mod place;
mod system;
mod unpack;
#[path = "zstd.rs"]
mod zstd;

use format::Trailer;
use place::{FOREIGN, Place, UNSAFE, places};
use system::{EEXIST, ENOSPC, call, map_file};
use unpack::{NOEXEC, prepare};

use crate::{
    LAUNCH_FILE,
    arena::{Arena, Strings, bytes},
    files::{exists, not_started, parent, starts_with},
    kernel::{fail, nr, reason},
    start_help,
};

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

fn why(error: isize) -> &'static [u8] {
    match error {
        UNSAFE => b"other users can write to it",
        FOREIGN => b"it belongs to another user",
        NOEXEC => b"it lies on a file system that is mounted with `noexec`",
        ENOSPC => b"no space is left",
        EEXIST => b"something else is there",
        -30 => b"the file system is read-only",
        -122 => b"the disk quota is used up",
        _ => reason(error),
    }
}

/// The path of the tree's launcher, and the environment: number of entries, entries.
type Unpacked = (&'static [u8], usize, *const *const u8);

/// Unpacks if needed; ends the process when that fails. This program then does itself what the
/// tree's launcher would, which saves a start.
pub fn start(
    own: &'static [u8],
    (argc, argv): (usize, *const *const u8),
    (envc, envp): (usize, *const *const u8),
    arena: &mut Arena,
) -> Unpacked {
    // The file that was started, also when another has taken its name meanwhile.
    let file = map_file(b"/proc/self/exe\0").or_else(|_| map_file(arena.join(&[own])));
    let damaged = || -> ! {
        fail(&[
            b"`",
            own,
            b"` is damaged or was cut off\n  help: copy the file again",
        ])
    };
    let file = match file {
        Ok(file) => file,
        Err(error) => fail(&[
            b"cannot read `", own, b"`: ", reason(error),
            b"\n  help: it must be readable for the user who starts it (`chmod a+r`)",
        ]),
    };
    let Some(trailer) = Trailer::read(file) else {
        damaged()
    };
    let (places, is_chosen) = places(envp, envc, arena);
    for place in places.iter().flatten() {
        let program = place.path(arena, &[trailer.id, b"/", trailer.entry]);
        if exists(program) && place.check().is_ok() {
            return unpacked(program, own, (argc, argv), (envc, envp), arena);
        }
    }
    let mut failed: [Option<(Place, isize)>; 5] = [None; 5];
    for (place, failed) in places.iter().flatten().zip(&mut failed) {
        match prepare(place, &trailer, file, arena) {
            Ok(()) => {
                let program = place.path(arena, &[trailer.id, b"/", trailer.entry]);
                return unpacked(program, own, (argc, argv), (envc, envp), arena);
            }
            Err(Failure::Damaged) => damaged(),
            Err(Failure::System(error)) => *failed = Some((*place, error)),
        }
    }
    let mut digits = [0; 20];
    let size = decimal(trailer.size_bytes.div_ceil(1 << 20), &mut digits);
    // Every folder that was tried: the last resort may be the one that is easily mended.
    let mut parts: [&[u8]; 24] = [b""; 24];
    let mut at = 0;
    for (place, error) in failed.iter().flatten() {
        parts[at] = if at == 0 {
            b"cannot unpack into `"
        } else {
            b"\n  nor into `"
        };
        parts[at + 1] = &place.dir[..place.dir.len() - 1];
        parts[at + 2] = b"`: ";
        parts[at + 3] = why(*error);
        at += 4;
    }
    parts[at] = b"\n  help: the app needs ";
    parts[at + 1] = size;
    parts[at + 2] = if is_chosen {
        b" MiB there; change `PYTHEAS_UNPACK_DIR`"
    } else {
        b" MiB in a folder of its own; name one with `PYTHEAS_UNPACK_DIR`"
    };
    fail(&parts)
}

pub enum Failure {
    Damaged,
    System(isize),
}

impl From<isize> for Failure {
    fn from(error: isize) -> Self {
        Self::System(error)
    }
}

/// What the launcher goes on with: the path of the tree's own launcher, and the environment with
/// `PYTHEAS_ONE_FILE` naming this file. A tree whose program is no launcher is started right away.
fn unpacked(
    program: &'static [u8],
    own: &'static [u8],
    (argc, argv): (usize, *const *const u8),
    (envc, envp): (usize, *const *const u8),
    arena: &mut Arena,
) -> Unpacked {
    const NAME: &[u8] = b"PYTHEAS_ONE_FILE=";
    let mut variables = Strings::new(arena, envc + 1);
    for index in 0..envc {
        // SAFETY: index < envc.
        let variable = unsafe { *envp.add(index) };
        // SAFETY: the kernel's environment strings are C strings.
        if !starts_with(unsafe { bytes(variable) }, NAME) {
            variables.push(variable);
        }
    }
    variables.push(arena.join(&[NAME, own]).as_ptr());
    let path = &program[..program.len() - 1];
    let launch = arena.join(&[parent(parent(path)), LAUNCH_FILE]);
    if exists(launch) {
        return (path, variables.len, variables.memory);
    }
    let mut arguments = Strings::new(arena, argc.max(1));
    arguments.push(program.as_ptr());
    for index in 1..argc {
        // SAFETY: index < argc.
        arguments.push(unsafe { *argv.add(index) });
    }
    // SAFETY: C strings and NULL-terminated lists of them.
    let error = unsafe {
        let (arguments, variables) = (arguments.memory as usize, variables.memory as usize);
        call(
            nr::EXECVE,
            program.as_ptr() as usize,
            arguments,
            variables,
            0,
        )
    };
    fail(&[
        b"cannot start `",
        &program[..program.len() - 1],
        b"`: ",
        not_started(program, error),
        start_help(not_started(program, error) != reason(error)),
    ])
}
