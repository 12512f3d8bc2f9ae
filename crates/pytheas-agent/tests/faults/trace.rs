//! Runs a program under ptrace and shows every system call on files below one folder before and
//! after it is made: it may be let through, refused, shortened, tampered with, or be the last.
//!
//! A seccomp filter picks the calls, so that all others run at full speed. Threads are followed;
//! so are the programs it starts, but those do as they like.
#![expect(
    unsafe_code,
    reason = "ptrace(2), seccomp(2) and process_vm_readv(2) have no safe wrappers; what is read and written lies in another process"
)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use libc::{c_int, c_long, c_void, pid_t};

/// What is done to a call before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Pass,
    /// It is made, and shown again afterwards.
    Watch,
    /// It is not made; this error is its result.
    Fail(c_int),
    /// It is made with this many bytes at most, and shown again afterwards.
    Shorten(u64),
    /// The program is killed before it is made.
    Kill,
}

/// What is done after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// The program goes on.
    GoOn,
    /// These bytes are what was read, as far as there is room.
    Replace(Vec<u8>),
    /// It is killed.
    Kill,
}

/// A system call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) tid: pid_t,
    pub(crate) number: c_long,
    pub(crate) args: [u64; 6],
    /// The file it is about, absolute; of two the first.
    pub(crate) path: PathBuf,
    /// The second one, of a rename or a link.
    pub(crate) to: Option<PathBuf>,
}

/// Who is shown the calls.
pub(crate) trait Observer {
    fn before(&mut self, call: &Call) -> Verdict;
    fn after(&mut self, call: &Call, result: i64) -> After;
    /// What is added to the wall clock at this reading of it, in seconds.
    fn clock_offset(&mut self) -> i64 {
        0
    }
}

/// Which calls are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watched {
    /// Also those that only read.
    pub(crate) reads: bool,
    /// Also readings of the wall clock.
    pub(crate) clock: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Exited(c_int),
    /// By a signal: the fault.
    Killed,
    /// It did not end in time and was killed.
    TimedOut,
}

const CHANGING: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_creat,
];
const READING: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_getdents64,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_statx,
];
const CREATING: u32 = (libc::O_CREAT | libc::O_TRUNC) as u32;

/// The calls that make or change a file's content.
pub(crate) fn writes(number: c_long) -> bool {
    matches!(
        number,
        libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_copy_file_range
            | libc::SYS_sendfile
    )
}

/// The call's name.
pub(crate) fn name(number: c_long) -> &'static str {
    match number {
        libc::SYS_write => "write",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_writev => "writev",
        libc::SYS_pwritev => "pwritev",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_syncfs => "syncfs",
        libc::SYS_rename => "rename",
        libc::SYS_renameat => "renameat",
        libc::SYS_renameat2 => "renameat2",
        libc::SYS_link => "link",
        libc::SYS_linkat => "linkat",
        libc::SYS_symlink => "symlink",
        libc::SYS_symlinkat => "symlinkat",
        libc::SYS_unlink => "unlink",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_rmdir => "rmdir",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_chmod => "chmod",
        libc::SYS_fchmod => "fchmod",
        libc::SYS_fchmodat => "fchmodat",
        libc::SYS_copy_file_range => "copy_file_range",
        libc::SYS_sendfile => "sendfile",
        libc::SYS_open => "open",
        libc::SYS_openat => "openat",
        libc::SYS_read => "read",
        libc::SYS_pread64 => "pread64",
        libc::SYS_getdents64 => "getdents64",
        libc::SYS_readlink => "readlink",
        libc::SYS_readlinkat => "readlinkat",
        libc::SYS_statx => "statx",
        _ => "another call",
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", name(self.number), self.path.display())?;
        if let Some(to) = &self.to {
            write!(f, " -> {}", to.display())?;
        }
        Ok(())
    }
}

/// The seccomp program that stops the process at the calls that are watched.
fn filter(watched: Watched) -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let trace = op(RETURN, 0, 0, libc::SECCOMP_RET_TRACE);
    let allow = op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let argument = |n: u32| op(LOAD, 0, 0, 16 + 8 * n); // seccomp_data.args, low half
    let mut program = vec![op(LOAD, 0, 0, 0)];
    let mut numbers = CHANGING.to_vec();
    if watched.reads {
        numbers.extend(READING);
        numbers.extend([libc::SYS_open, libc::SYS_openat]);
    }
    for number in numbers {
        program.extend([op(EQUAL, 0, 1, number as u32), trace]);
    }
    for (number, flags) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
        program.extend([
            op(EQUAL, 0, 4, number as u32),
            argument(flags),
            op(ANY_BIT, 0, 1, CREATING),
            trace,
            allow,
        ]);
    }
    if watched.clock {
        program.extend([
            op(EQUAL, 0, 4, libc::SYS_clock_gettime as u32),
            argument(0),
            op(EQUAL, 0, 1, libc::CLOCK_REALTIME as u32),
            trace,
            allow,
        ]);
    }
    program.push(allow);
    program
}

/// Kills what does not end in time; one thread for all runs.
fn watchdog() -> &'static Mutex<BTreeMap<pid_t, (Instant, bool)>> {
    static RUNNING: OnceLock<Mutex<BTreeMap<pid_t, (Instant, bool)>>> = OnceLock::new();
    RUNNING.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(10));
                for (pid, (deadline, late)) in watchdog().lock().unwrap().iter_mut() {
                    if !*late && *deadline <= Instant::now() {
                        *late = true;
                        // SAFETY: a plain call; the process is not reaped while it is listed.
                        unsafe { libc::kill(*pid, libc::SIGKILL) };
                    }
                }
            }
        });
        Mutex::default()
    })
}

/// Shortens the time a running program has to `left` from now.
pub(crate) fn hurry(pid: pid_t, left: Duration) {
    if let Some((deadline, _)) = watchdog().lock().unwrap().get_mut(&pid) {
        *deadline = (*deadline).min(Instant::now() + left);
    }
}

/// Whether processes may be traced here.
pub(crate) fn is_possible() -> Result<(), String> {
    struct Nothing;
    impl Observer for Nothing {
        fn before(&mut self, _: &Call) -> Verdict {
            Verdict::Pass
        }
        fn after(&mut self, _: &Call, _: i64) -> After {
            After::GoOn
        }
    }
    match run(
        Command::new("true"),
        Path::new("/nowhere"),
        Watched::default(),
        Duration::from_secs(20),
        &mut Nothing,
    ) {
        Ok(End::Exited(0)) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Runs `command` to its end, its calls below `root` shown to `observer`.
pub(crate) fn run(
    mut command: Command,
    root: &Path,
    watched: Watched,
    patience: Duration,
    observer: &mut dyn Observer,
) -> std::io::Result<End> {
    let program = filter(watched);
    // SAFETY: between fork and exec only prctl, seccomp's prctl and ptrace are called, all of
    // which are async-signal-safe; `program` was made before the fork and lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let listing = libc::sock_fprog {
                len: program.len() as u16,
                filter: program.as_ptr().cast_mut(),
            };
            let check = |result: c_long| match result {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            };
            let none = std::ptr::null_mut::<c_void>();
            check(libc::ptrace(libc::PTRACE_TRACEME, 0, none, none))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            let filtered = libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const listing,
            );
            check(filtered.into())
        });
    }
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    watchdog()
        .lock()
        .unwrap()
        .insert(pid, (Instant::now() + patience, false));
    let mut tracer = Tracer {
        pid,
        root,
        watched,
        threads: BTreeMap::new(),
        entered: BTreeMap::new(),
        observer,
    };
    let end = tracer.watch();
    let late = watchdog()
        .lock()
        .unwrap()
        .remove(&pid)
        .is_some_and(|(_, late)| late);
    tracer.end_the_rest();
    drop(child); // reaped above
    match end? {
        End::Killed if late => Ok(End::TimedOut),
        end => Ok(end),
    }
}

struct Tracer<'a> {
    pid: pid_t,
    root: &'a Path,
    watched: Watched,
    /// Every traced thread; whether it is one of the program itself.
    threads: BTreeMap<pid_t, bool>,
    /// Calls that were let in and are to be shown when they come out.
    entered: BTreeMap<pid_t, Option<Call>>,
    observer: &'a mut dyn Observer,
}

impl Tracer<'_> {
    fn watch(&mut self) -> std::io::Result<End> {
        loop {
            let mut status = 0;
            // SAFETY: waits for what this thread traces; `status` is ours.
            let tid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if tid < 0 {
                let error = std::io::Error::last_os_error();
                if error.kind() == std::io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.threads.remove(&tid);
                self.entered.remove(&tid);
                if tid == self.pid {
                    return Ok(if libc::WIFEXITED(status) {
                        End::Exited(libc::WEXITSTATUS(status))
                    } else {
                        End::Killed
                    });
                }
                continue;
            }
            if libc::WIFSTOPPED(status) {
                self.stopped(tid, status);
            }
        }
    }

    fn stopped(&mut self, tid: pid_t, status: c_int) {
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        let is_new = !self.threads.contains_key(&tid);
        if is_new {
            let own = tid == self.pid || thread_group(tid) == Some(self.pid);
            self.threads.insert(tid, own);
        }
        let own = self.threads.get(&tid).copied().unwrap_or(false);
        if is_new && tid == self.pid {
            // The first stop: the program was just put into the process.
            let options = libc::PTRACE_O_TRACESECCOMP
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_TRACESYSGOOD
                | libc::PTRACE_O_EXITKILL;
            ptrace(libc::PTRACE_SETOPTIONS, tid, options as usize);
            if self.watched.clock {
                self.hide_vdso(tid);
            }
            return resume(tid, libc::PTRACE_CONT, 0);
        }
        if event == libc::PTRACE_EVENT_SECCOMP {
            return if own {
                self.enter(tid)
            } else {
                resume(tid, libc::PTRACE_CONT, 0)
            };
        }
        if signal == libc::SIGTRAP | 0x80 {
            return self.leave(tid);
        }
        let deliver = match signal {
            libc::SIGTRAP => 0,           // an event
            libc::SIGSTOP if is_new => 0, // how a new thread begins
            signal => signal,
        };
        resume(tid, libc::PTRACE_CONT, deliver);
    }

    fn enter(&mut self, tid: pid_t) {
        let Some(mut registers) = registers(tid) else {
            return resume(tid, libc::PTRACE_CONT, 0);
        };
        let number = registers.orig_rax as c_long;
        let args = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        if number == libc::SYS_clock_gettime {
            self.entered.insert(tid, None);
            return resume(tid, libc::PTRACE_SYSCALL, 0);
        }
        let Some(call) = self.call(tid, number, args) else {
            return resume(tid, libc::PTRACE_CONT, 0);
        };
        match self.observer.before(&call) {
            Verdict::Pass => resume(tid, libc::PTRACE_CONT, 0),
            Verdict::Watch => {
                self.entered.insert(tid, Some(call));
                resume(tid, libc::PTRACE_SYSCALL, 0);
            }
            Verdict::Fail(errno) => {
                registers.orig_rax = u64::MAX; // no call at all
                registers.rax = i64::from(-errno).cast_unsigned();
                set_registers(tid, &registers);
                resume(tid, libc::PTRACE_CONT, 0);
            }
            Verdict::Shorten(len) => {
                match number {
                    libc::SYS_copy_file_range => registers.r8 = registers.r8.min(len),
                    libc::SYS_sendfile => registers.r10 = registers.r10.min(len),
                    _ => registers.rdx = registers.rdx.min(len),
                }
                set_registers(tid, &registers);
                self.entered.insert(tid, Some(call));
                resume(tid, libc::PTRACE_SYSCALL, 0);
            }
            Verdict::Kill => self.kill(),
        }
    }

    fn leave(&mut self, tid: pid_t) {
        if let (Some(entered), Some(mut registers)) = (self.entered.remove(&tid), registers(tid)) {
            match entered {
                None => {
                    let offset = self.observer.clock_offset();
                    if offset != 0
                        && let Some(seconds) = read_memory(tid, registers.rsi, 8)
                        && let Ok(seconds) = seconds.try_into().map(i64::from_ne_bytes)
                    {
                        write_memory(tid, registers.rsi, &(seconds + offset).to_ne_bytes());
                    }
                }
                Some(call) => match self.observer.after(&call, registers.rax.cast_signed()) {
                    After::GoOn => {}
                    After::Replace(bytes) => {
                        write_memory(tid, call.args[1], &bytes);
                        registers.rax = registers.rax.min(bytes.len() as u64);
                        set_registers(tid, &registers);
                    }
                    After::Kill => return self.kill(),
                },
            }
        }
        resume(tid, libc::PTRACE_CONT, 0);
    }

    fn kill(&self) {
        // SAFETY: a plain call; our child is not reaped yet.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// The call, if it is about a file below the root.
    fn call(&self, tid: pid_t, number: c_long, args: [u64; 6]) -> Option<Call> {
        let at = |dir: u64, path: u64| -> Option<PathBuf> {
            let path = read_path(tid, path)?;
            if path.is_absolute() {
                return Some(path);
            }
            let dir = match dir as i32 {
                libc::AT_FDCWD => fs::read_link(format!("/proc/{tid}/cwd")).ok()?,
                fd => fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?,
            };
            Some(if path.as_os_str().is_empty() {
                dir
            } else {
                dir.join(path)
            })
        };
        let cwd = libc::AT_FDCWD as u64;
        let open = |fd: u64| fs::read_link(format!("/proc/{tid}/fd/{}", fd as i32)).ok();
        let (path, to) = match number {
            libc::SYS_rename | libc::SYS_link => (at(cwd, args[0])?, Some(at(cwd, args[1])?)),
            libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_linkat => {
                (at(args[0], args[1])?, Some(at(args[2], args[3])?))
            }
            libc::SYS_symlink => (at(cwd, args[1])?, Some(read_path(tid, args[0])?)),
            libc::SYS_symlinkat => (at(args[1], args[2])?, Some(read_path(tid, args[0])?)),
            libc::SYS_open
            | libc::SYS_creat
            | libc::SYS_unlink
            | libc::SYS_mkdir
            | libc::SYS_rmdir
            | libc::SYS_truncate
            | libc::SYS_chmod
            | libc::SYS_readlink => (at(cwd, args[0])?, None),
            libc::SYS_openat
            | libc::SYS_unlinkat
            | libc::SYS_mkdirat
            | libc::SYS_fchmodat
            | libc::SYS_readlinkat
            | libc::SYS_statx => (at(args[0], args[1])?, None),
            libc::SYS_copy_file_range => (open(args[2])?, None),
            _ => (open(args[0])?, None),
        };
        path.starts_with(self.root).then_some(Call {
            tid,
            number,
            args,
            path,
            to,
        })
    }

    /// Makes the C library ask the kernel for the time, by a call that can be seen.
    fn hide_vdso(&self, tid: pid_t) {
        const SYSINFO_EHDR: u64 = 33;
        const IGNORE: u64 = 1;
        let Some(registers) = registers(tid) else {
            return;
        };
        let word = |at: u64| -> Option<u64> {
            Some(u64::from_ne_bytes(
                read_memory(tid, at, 8)?.try_into().ok()?,
            ))
        };
        let hide = || -> Option<()> {
            let mut at = registers.rsp + 8 * (word(registers.rsp)? + 2); // argc, argv, null
            while word(at)? != 0 {
                at += 8; // environment
            }
            at += 8;
            loop {
                match word(at)? {
                    0 => return None,
                    SYSINFO_EHDR => {
                        write_memory(tid, at, &IGNORE.to_ne_bytes());
                        return Some(());
                    }
                    _ => at += 16,
                }
            }
        };
        assert!(
            hide().is_some(),
            "no vDSO in the process's auxiliary vector"
        );
    }

    /// Ends the programs that it had started, also one that was just being started: it holds what
    /// the program held.
    fn end_the_rest(&mut self) {
        for tid in self.threads.keys() {
            // SAFETY: a plain call; traced threads cannot be gone before we reap them.
            unsafe { libc::kill(*tid, libc::SIGKILL) };
        }
        loop {
            let mut status = 0;
            // SAFETY: as in `watch`.
            let tid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if tid < 0 {
                return; // nobody is left
            }
            if libc::WIFSTOPPED(status) {
                // SAFETY: as above.
                unsafe { libc::kill(tid, libc::SIGKILL) };
                resume(tid, libc::PTRACE_CONT, 0);
            }
        }
    }
}

fn thread_group(tid: pid_t) -> Option<pid_t> {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()
}

fn ptrace(request: libc::c_uint, tid: pid_t, data: usize) -> c_long {
    // SAFETY: requests whose data is a number, or a pointer to memory that outlives the call.
    unsafe {
        libc::ptrace(
            request,
            tid,
            std::ptr::null_mut::<c_void>(),
            data as *mut c_void,
        )
    }
}

fn resume(tid: pid_t, how: libc::c_uint, signal: c_int) {
    // It may have been killed meanwhile; then there is nothing to resume.
    let _gone_or_not = ptrace(how, tid, signal as usize);
}

fn registers(tid: pid_t) -> Option<libc::user_regs_struct> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    let result = ptrace(libc::PTRACE_GETREGS, tid, registers.as_mut_ptr() as usize);
    // SAFETY: numbers only, all zero before the kernel filled them in.
    (result == 0).then(|| unsafe { registers.assume_init() })
}

fn set_registers(tid: pid_t, registers: &libc::user_regs_struct) {
    ptrace(
        libc::PTRACE_SETREGS,
        tid,
        std::ptr::from_ref(registers) as usize,
    );
}

/// Memory of a stopped thread.
pub(crate) fn read_memory(tid: pid_t, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; len];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: len,
    };
    let remote = libc::iovec {
        iov_base: at as *mut c_void,
        iov_len: len,
    };
    // SAFETY: the kernel writes at most `len` bytes into `bytes`.
    let count =
        unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    bytes.truncate(usize::try_from(count).ok()?);
    Some(bytes)
}

fn write_memory(tid: pid_t, at: u64, bytes: &[u8]) {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: at as *mut c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads from `bytes`.
    let count =
        unsafe { libc::process_vm_writev(tid, &raw const local, 1, &raw const remote, 1, 0) };
    assert_eq!(count, bytes.len() as isize, "a stopped thread's memory");
}

fn read_path(tid: pid_t, at: u64) -> Option<PathBuf> {
    // Not over the end of a page: the next one may not be there.
    let mut bytes = Vec::new();
    while bytes.len() < 4096 {
        let from = at + bytes.len() as u64;
        let part = read_memory(tid, from, (4096 - from % 4096) as usize)?;
        let end = part.iter().position(|byte| *byte == 0);
        bytes.extend_from_slice(&part[..end.unwrap_or(part.len())]);
        if end.is_some() || part.is_empty() {
            return Some(OsString::from_vec(bytes).into());
        }
    }
    None
}
