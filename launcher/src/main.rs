//! The launcher: `bin/<app>` of every bundle. Finds the bundle it lies in and starts what
//! `pytheas.launch` says, from any folder, with any environment, on a machine without Python.
//!
//! Freestanding on purpose: no libc, no loader, no allocation by others, so that the same few
//! kilobytes run on glibc, on musl and in an empty root file system. `crates/pytheas-build/build.rs`
//! compiles it with the `rustc` that compiles `pytheas` and embeds it.
//!
//! `pytheas.launch` is a list of records, each ended by NUL; the first byte says what it is:
//!
//! ```text
//! pytheas-launch 1      the format
//! !python/bin/python3   the program, relative to the bundle     (exactly one)
//! =-I                   an argument as it is
//! @app/main.py          an argument that is a path in the bundle
//! -PYTHON               environment variables that begin so are not passed on
//! +NAME=value           an environment variable that is set
//! *NAME=/a:/b:c         one that is set, unless it is there already, to the first of these files
//!                       that exists; one without leading `/` lies in the bundle
//! ?NAME=-x              an argument, when the environment variable is set and not empty; it is
//!                       passed on, whatever `-` says
//! ~                     an argument: the path this program was started by, or its own
//! %                     `PYTHEAS_ROOT` is passed on as it is: for a Python inside a bundle
//! ```
//!
//! The arguments of the command line follow; `PYTHEAS_ROOT` is set to the bundle's folder.
//! A bundle with its own C library has a second launcher, `python/bin/python3.X` (with
//! `python/pytheas.launch`), so that `sys.executable` is a program that can be started.
//!
//! Unsafe throughout: there is no one below us to be safe for us. The whole program runs on one
//! thread, every pointer comes from the kernel's initial stack (System V ABI, "Process
//! Initialization") or from the one arena mapped in `Arena::map`, and lives until `execve`.
#![no_std]
#![no_main]
#![no_builtins]

mod arena;
mod builtins;
mod entry;
mod files;
mod kernel;
/// The launcher of a one-file bundle is this program with one step before.
#[cfg(one_file)]
mod one_file;

use arena::{Arena, Strings, bytes};
use files::{exists, not_started, own_path, parent, read_file, starts_with};
use kernel::{AT_EXECFN, ENOENT, fail, nr, reason, syscall};

const LAUNCH_MAX: usize = 64 * 1024;
const LAUNCH_FILE: &[u8] = b"/pytheas.launch";
const MAGIC: &[u8] = b"pytheas-launch 1";
const ROOT_VARIABLE: &[u8] = b"PYTHEAS_ROOT=";

/// The records of `pytheas.launch`, without the first.
fn records(launch: &'static [u8]) -> impl Iterator<Item = &'static [u8]> {
    launch
        .split(|byte| *byte == 0)
        .skip(1)
        .filter(|record| !record.is_empty())
}

/// Whether a record asks for the environment's entry `text`.
fn is_asked(text: &[u8], launch: &'static [u8]) -> bool {
    records(launch).any(|record| {
        record[0] == b'?'
            && record
                .iter()
                .position(|byte| *byte == b'=')
                .is_some_and(|end| starts_with(text, &record[1..=end]))
    })
}

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc, argv…, NULL, envp…, NULL and the auxiliary vector here.
    let argc = unsafe { *stack };
    // SAFETY: as above.
    let argv: *const *const u8 = unsafe { stack.add(1) }.cast();
    // SAFETY: as above; argv has argc entries and a NULL.
    let envp = unsafe { argv.add(argc + 1) };
    let mut envc = 0;
    // SAFETY: envp ends with NULL.
    while unsafe { !(*envp.add(envc)).is_null() } {
        envc += 1;
    }
    // SAFETY: the auxiliary vector follows envp's NULL and ends with a pair whose key is 0.
    let mut auxv: *const usize = unsafe { envp.add(envc + 1) }.cast();
    let mut executed: &[u8] = b"";
    loop {
        // SAFETY: as above.
        let (key, value) = unsafe { (*auxv, *auxv.add(1)) };
        if key == 0 {
            break;
        }
        if key == AT_EXECFN {
            // SAFETY: a C string on the initial stack.
            executed = unsafe { bytes(value as *const u8) };
        }
        // SAFETY: not the last pair.
        auxv = unsafe { auxv.add(2) };
    }

    let pointers = (argc + envc + 2 * LAUNCH_MAX / 2) * size_of::<usize>();
    let mut arena = Arena::map((2 << 20) + pointers);
    let own = own_path(executed, &mut arena);
    // The tree's own launcher is this program: what it would do is done here.
    #[cfg(one_file)]
    let (own, envc, envp) = one_file::start(own, (argc, argv), (envc, envp), &mut arena);
    let root = parent(parent(own));

    let launch_path = arena.join(&[root, LAUNCH_FILE]);
    let shown = &launch_path[..launch_path.len() - 1];
    let launch = match read_file(launch_path, &mut arena) {
        Ok(launch) => launch,
        Err(error) => fail(&[
            b"cannot read `", shown, b"`: ", reason(error),
            b"\n  help: the program must stay in the `bin` folder of its bundle; link to it instead of copying it",
        ]),
    };
    if launch.split(|byte| *byte == 0).next() != Some(MAGIC) {
        fail(&[
            b"`",
            shown,
            b"` is damaged or of another version\n  help: install the bundle again",
        ]);
    }

    let mut program: &[u8] = b"";
    let mut arguments = Strings::new(&mut arena, argc + LAUNCH_MAX / 2);
    let mut variables = Strings::new(&mut arena, envc + LAUNCH_MAX / 2);
    arguments.push(b"\0".as_ptr()); // replaced by the program's path below
    let keeps_root = records(launch).any(|record| record[0] == b'%');
    if !keeps_root {
        variables.push(arena.join(&[ROOT_VARIABLE, root]).as_ptr());
    }
    for record in records(launch) {
        let value = &record[1..];
        match record[0] {
            b'~' => {
                // SAFETY: argv has argc entries.
                let name = if argc > 0 {
                    unsafe { bytes(*argv) }
                } else {
                    b""
                };
                let name = if name.contains(&b'/') { name } else { own };
                arguments.push(arena.join(&[name]).as_ptr());
            }
            b'?' => {
                let end = value.iter().position(|byte| *byte == b'=').unwrap_or(0);
                let name = &value[..=end];
                let is_set = (0..envc).any(|index| {
                    // SAFETY: envp has envc entries, C strings.
                    let text = unsafe { bytes(*envp.add(index)) };
                    starts_with(text, name) && text.len() > name.len()
                });
                if is_set {
                    arguments.push(arena.join(&[&value[end + 1..]]).as_ptr());
                }
            }
            b'*' => {
                let end = value.iter().position(|byte| *byte == b'=').unwrap_or(0);
                let name = &value[..=end];
                // SAFETY: envp has envc entries, C strings.
                let is_set = (0..envc).any(|i| starts_with(unsafe { bytes(*envp.add(i)) }, name));
                if !is_set {
                    for candidate in value[end + 1..].split(|byte| *byte == b':') {
                        let inside = [root, b"/", candidate];
                        let parts = if candidate.first() == Some(&b'/') {
                            &inside[2..]
                        } else {
                            &inside[..]
                        };
                        let path = arena.join(parts);
                        if exists(path) {
                            variables.push(arena.join(&[name, &path[..path.len() - 1]]).as_ptr());
                            break;
                        }
                    }
                }
            }
            b'!' => program = arena.join(&[root, b"/", value]),
            b'=' => arguments.push(arena.join(&[value]).as_ptr()),
            b'@' => arguments.push(arena.join(&[root, b"/", value]).as_ptr()),
            b'+' => variables.push(arena.join(&[value]).as_ptr()),
            _ => {}
        }
    }
    if program.is_empty() {
        fail(&[
            b"`",
            shown,
            b"` names no program\n  help: install the bundle again",
        ]);
    }
    // SAFETY: the first element exists, it was pushed above.
    unsafe { arguments.memory.write(program.as_ptr()) };
    for index in 1..argc {
        // SAFETY: index < argc.
        arguments.push(unsafe { *argv.add(index) });
    }
    for index in 0..envc {
        // SAFETY: index < envc.
        let variable = unsafe { *envp.add(index) };
        // SAFETY: the kernel's environment strings are C strings.
        let text = unsafe { bytes(variable) };
        let dropped = (!keeps_root && starts_with(text, ROOT_VARIABLE))
            || records(launch).any(|r| match r[0] {
                b'-' => starts_with(text, &r[1..]) && !is_asked(text, launch),
                // A variable that is set here replaces the inherited one.
                b'+' => r
                    .iter()
                    .position(|b| *b == b'=')
                    .is_some_and(|end| starts_with(text, &r[1..=end])),
                _ => false,
            });
        if !dropped {
            variables.push(variable);
        }
    }

    // SAFETY: C strings and NULL-terminated lists of them.
    let error = unsafe {
        syscall(
            nr::EXECVE,
            [
                program.as_ptr() as usize,
                arguments.memory as usize,
                variables.memory as usize,
                0,
                0,
                0,
            ],
        )
    };
    let name = &program[..program.len() - 1];
    if error == -ENOENT && exists(program) {
        fail(&[
            b"cannot start `", name, b"`: its loader is not on this machine",
            b"\n  help: this bundle needs the C library of its platform (musl for `-musl`, else glibc); build it for this one, or with Debian's Python, which brings its own",
        ]);
    }
    let why = not_started(program, error);
    let is_noexec = why != reason(error);
    fail(&[b"cannot start `", name, b"`: ", why, start_help(is_noexec)])
}

/// What to do when the program of the tree is there and does not start.
fn start_help(is_noexec: bool) -> &'static [u8] {
    match (cfg!(one_file), is_noexec) {
        (false, false) => b"\n  help: install the bundle again",
        (false, true) => b"\n  help: install the bundle on another one, or mount this one without `noexec`",
        (true, false) => b"\n  help: remove that folder, it is unpacked again",
        (true, true) => b"\n  help: name a folder on another one with `PYTHEAS_UNPACK_DIR`",
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail(&[b"cannot start: this is a defect of the launcher"])
}
