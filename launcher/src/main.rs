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

use core::arch::{asm, global_asm};

/// The launcher of a one-file bundle is this program with one step before.
#[cfg(one_file)]
mod one_file;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "and sp, x0, #0xfffffffffffffff0",
    "bl {start}",
    "brk #1",
    start = sym start,
);

#[cfg(target_arch = "arm")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov r11, #0",
    "mov lr, #0",
    "mov r0, sp",
    "bl {start}",
    "udf #0",
    start = sym start,
);

#[cfg(target_arch = "riscv64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mv s0, zero",
    "mv ra, zero",
    "mv a0, sp",
    "andi sp, sp, -16",
    "call {start}",
    "unimp",
    start = sym start,
);

/// Numbers of the system calls used (linux/arch/*/syscalls).
#[cfg(target_arch = "x86_64")]
mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const EXECVE: usize = 59;
    pub const GETCWD: usize = 79;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
}
/// Of the kernel's generic table (include/uapi/asm-generic/unistd.h).
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod nr {
    pub const GETCWD: usize = 17;
    pub const FACCESSAT: usize = 48;
    pub const OPENAT: usize = 56;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const READLINKAT: usize = 78;
    pub const EXIT_GROUP: usize = 94;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
}
#[cfg(target_arch = "arm")]
mod nr {
    pub const READ: usize = 3;
    pub const WRITE: usize = 4;
    pub const EXECVE: usize = 11;
    pub const GETCWD: usize = 183;
    pub const MMAP: usize = 192; // mmap2
    pub const EXIT_GROUP: usize = 248;
    pub const OPENAT: usize = 322;
    pub const READLINKAT: usize = 332;
    pub const FACCESSAT: usize = 334;
}

/// A system call with up to six arguments; a negative result is an error number.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; the rest is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
             in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
             in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but x0; the rest is the caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => result,
             in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
             options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "arm")]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: EABI: number in r7 (saved here, LLVM may use it as frame pointer), arguments in
    // r0-r5, result in r0; the rest is the caller's promise.
    unsafe {
        asm!("mov {saved}, r7", "mov r7, {number}", "svc 0", "mov r7, {saved}",
             saved = out(reg) _, number = in(reg) number,
             inlateout("r0") a[0] as isize => result, in("r1") a[1], in("r2") a[2],
             in("r3") a[3], in("r4") a[4], in("r5") a[5], options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "riscv64")]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but a0; the rest is the caller's promise.
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") a[0] as isize => result,
             in("a1") a[1], in("a2") a[2], in("a3") a[3], in("a4") a[4], in("a5") a[5],
             options(nostack));
    }
    result
}

const AT_FDCWD: usize = -100_isize as usize;
const AT_EXECFN: usize = 31;
const O_CLOEXEC: usize = 0o2_000_000;
const ENOENT: isize = 2;
/// Exit code for "cannot be started", as a shell uses it.
const CANNOT_START: usize = 127;
const PATH_MAX: usize = 4096;
const LAUNCH_MAX: usize = 64 * 1024;
const LAUNCH_FILE: &[u8] = b"/pytheas.launch";
const MAGIC: &[u8] = b"pytheas-launch 1";
const ROOT_VARIABLE: &[u8] = b"PYTHEAS_ROOT=";

/// Writes the parts to standard error and ends with exit code 127.
fn fail(parts: &[&[u8]]) -> ! {
    for part in [&b"pytheas: "[..]].iter().chain(parts).chain(&[&b"\n"[..]]) {
        // SAFETY: write(2) of a valid slice. A failure cannot be told to anyone.
        unsafe { syscall(nr::WRITE, [2, part.as_ptr() as usize, part.len(), 0, 0, 0]) };
    }
    loop {
        // SAFETY: exit_group(2) takes a number and does not return.
        unsafe { syscall(nr::EXIT_GROUP, [CANNOT_START, 0, 0, 0, 0, 0]) };
    }
}

/// What an error number means to a person.
fn reason(error: isize) -> &'static [u8] {
    match -error {
        2 => b"no such file",
        7 => b"the arguments are too long",
        8 => b"it is for another kind of CPU, or damaged",
        12 => b"out of memory",
        13 => b"permission denied",
        20 => b"a part of the path is no folder",
        36 => b"the path is too long",
        40 => b"too many symbolic links",
        _ => b"the system refuses",
    }
}

/// Memory that is handed out front to back and never given back.
struct Arena {
    next: *mut u8,
    left: usize,
}

impl Arena {
    fn map(size: usize) -> Self {
        const READ_WRITE: usize = 1 | 2;
        const PRIVATE_ANONYMOUS: usize = 2 | 0x20;
        let none = usize::MAX;
        // SAFETY: an anonymous private mapping touches no other memory.
        let at = unsafe { syscall(nr::MMAP, [0, size, READ_WRITE, PRIVATE_ANONYMOUS, none, 0]) };
        if (-4095..0).contains(&at) {
            fail(&[b"cannot start: ", reason(at)]);
        }
        Self {
            next: at as *mut u8,
            left: size,
        }
    }

    /// `len` zeroed bytes, aligned for pointers.
    fn take(&mut self, len: usize) -> &'static mut [u8] {
        let len = (len + 15) & !15;
        if len > self.left {
            fail(&[b"cannot start: the arguments or paths are too long"]);
        }
        // SAFETY: within the mapping, handed out once; fresh pages are zero.
        let slice = unsafe { core::slice::from_raw_parts_mut(self.next, len) };
        // SAFETY: still within or at the end of the mapping (checked above).
        self.next = unsafe { self.next.add(len) };
        self.left -= len;
        slice
    }

    /// The parts joined, ended by NUL.
    fn join(&mut self, parts: &[&[u8]]) -> &'static [u8] {
        let mut len = 0;
        for part in parts {
            len += part.len();
        }
        let memory = self.take(len + 1);
        let mut at = 0;
        for part in parts {
            for byte in *part {
                memory[at] = *byte;
                at += 1;
            }
        }
        &memory[..=at]
    }
}

/// A list of C strings for `execve`.
struct Strings {
    memory: *mut *const u8,
    len: usize,
    max: usize,
}

impl Strings {
    fn new(arena: &mut Arena, max: usize) -> Self {
        let memory = arena
            .take((max + 1) * size_of::<*const u8>())
            .as_mut_ptr()
            .cast();
        Self {
            memory,
            len: 0,
            max,
        }
    }

    fn push(&mut self, string: *const u8) {
        if self.len == self.max {
            fail(&[b"cannot start: `pytheas.launch` has too many records"]);
        }
        // SAFETY: `memory` has room for `max + 1` pointers; the last stays null.
        unsafe { self.memory.add(self.len).write(string) };
        self.len += 1;
    }
}

/// The bytes of a C string, without NUL.
///
/// # Safety
/// `string` points to a NUL-terminated string that stays.
unsafe fn bytes(string: *const u8) -> &'static [u8] {
    let mut len = 0;
    // SAFETY: the caller's promise.
    while unsafe { *string.add(len) } != 0 {
        len += 1;
    }
    // SAFETY: `len` bytes were just read.
    unsafe { core::slice::from_raw_parts(string, len) }
}

/// The target of the link at `path` (ended by NUL), if it is one.
fn read_link(path: &[u8], arena: &mut Arena) -> Result<&'static [u8], isize> {
    let memory = arena.take(PATH_MAX);
    let (at, len) = (memory.as_mut_ptr() as usize, memory.len());
    // SAFETY: `path` ends with NUL, `memory` is ours.
    let result = unsafe {
        syscall(
            nr::READLINKAT,
            [AT_FDCWD, path.as_ptr() as usize, at, len, 0, 0],
        )
    };
    if result < 0 {
        Err(result)
    } else {
        Ok(&memory[..result as usize])
    }
}

/// What lies before the last `/`; nothing when there is none.
fn parent(path: &[u8]) -> &[u8] {
    let mut end = path.len();
    while end > 0 && path[end - 1] != b'/' {
        end -= 1;
    }
    &path[..end.saturating_sub(1)]
}

/// The launcher's own path: `/proc/self/exe`, or without `/proc` what the kernel was asked to
/// start (getauxval(3): AT_EXECFN), made absolute, links followed.
fn own_path(executed: &'static [u8], arena: &mut Arena) -> &'static [u8] {
    if let Ok(path) = read_link(b"/proc/self/exe\0", arena) {
        return path;
    }
    let mut path = absolute(executed, arena);
    for _ in 0..40 {
        let terminated = arena.join(&[path]);
        match read_link(terminated, arena) {
            Ok(target) if target.first() == Some(&b'/') => path = target,
            Ok(target) => {
                let joined = arena.join(&[parent(path), b"/", target]);
                path = &joined[..joined.len() - 1];
            }
            Err(_) => return path,
        }
    }
    fail(&[b"cannot start `", executed, b"`: too many symbolic links"])
}

fn absolute(path: &'static [u8], arena: &mut Arena) -> &'static [u8] {
    if path.first() == Some(&b'/') {
        return path;
    }
    let memory = arena.take(PATH_MAX);
    let (at, len) = (memory.as_mut_ptr() as usize, memory.len());
    // SAFETY: `memory` is ours; the kernel writes at most `len` bytes, the last a NUL it counts.
    let result = unsafe { syscall(nr::GETCWD, [at, len, 0, 0, 0, 0]) };
    if result < 1 {
        fail(&[
            b"cannot find out where `",
            path,
            b"` lies: ",
            reason(result),
        ]);
    }
    let joined = arena.join(&[&memory[..result as usize - 1], b"/", path]);
    &joined[..joined.len() - 1]
}

/// The content of `path` (ended by NUL), at most `LAUNCH_MAX` bytes.
fn read_file(path: &[u8], arena: &mut Arena) -> Result<&'static [u8], isize> {
    // SAFETY: `path` ends with NUL.
    let file = unsafe {
        syscall(
            nr::OPENAT,
            [AT_FDCWD, path.as_ptr() as usize, O_CLOEXEC, 0, 0, 0],
        )
    };
    if file < 0 {
        return Err(file);
    }
    let memory = arena.take(LAUNCH_MAX);
    let mut len = 0;
    while len < memory.len() {
        let (at, room) = (memory[len..].as_mut_ptr() as usize, memory.len() - len);
        // SAFETY: `room` bytes from `at` are ours.
        let result = unsafe { syscall(nr::READ, [file as usize, at, room, 0, 0, 0]) };
        match result {
            0 => break,
            1.. => len += result as usize,
            _ => return Err(result),
        }
    }
    Ok(&memory[..len])
}

/// Whether there is something at `path` (ended by NUL).
fn exists(path: &[u8]) -> bool {
    let at = path.as_ptr() as usize;
    // SAFETY: `path` ends with NUL.
    unsafe { syscall(nr::FACCESSAT, [AT_FDCWD, at, 0, 0, 0, 0]) == 0 }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text.iter().zip(prefix).all(|(a, b)| a == b)
}

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
    fail(&[
        b"cannot start `",
        name,
        b"`: ",
        reason(error),
        #[cfg(not(one_file))]
        b"\n  help: install the bundle again",
        #[cfg(one_file)]
        b"\n  help: remove that folder, it is unpacked again; a file system mounted with `noexec` does not do (`PYTHEAS_UNPACK_DIR`)",
    ])
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail(&[b"cannot start: this is a defect of the launcher"])
}

// What `core` expects from a C library. `no_builtins` keeps LLVM from turning these loops into
// calls of themselves.

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(from.add(index).read()) };
    }
    to
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) < (from as usize) {
        // SAFETY: the caller's promise; front to back when the target lies before the source.
        return unsafe { memcpy(to, from, len) };
    }
    for index in (0..len).rev() {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(from.add(index).read()) };
    }
    to
}

/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(byte as u8) };
    }
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { (*a.add(index), *b.add(index)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
/// As bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, len) }
}

/// Named by the unwind tables of the precompiled `core`; never called, panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
