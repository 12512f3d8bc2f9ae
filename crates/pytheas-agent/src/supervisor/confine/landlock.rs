//! Landlock: the app writes below the folders it was given, and nowhere else on the disk.
//!
//! Reading and executing stay free: code is protected by being unwritable. `/dev`, `/proc` and
//! `/sys` stay writable as far as their owners allow it, since gateways talk to devices there.
//! Linux 5.13; kernel documentation `userspace-api/landlock`.

use std::{
    ffi::c_void,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

/// `struct landlock_ruleset_attr`, as far as the first version of the interface knows it.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// Rights to change the file system (linux/landlock.h): writing, removing and making anything;
/// moving between folders since version 2, truncating since 3.
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_AND_MAKE: u64 = 0b1_1111_1111 << 4;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// Those of them that a rule about a single file may hold.
const OF_FILES: u64 = WRITE_FILE | TRUNCATE;

/// Rules that are in force once [`enforce`]d.
#[derive(Debug)]
pub(super) struct Ruleset(OwnedFd);

impl Ruleset {
    /// Rules by which only what lies below `writable` may be changed; folders that are not there
    /// are left out.
    ///
    /// # Errors
    /// What the kernel says: `ENOSYS` or `EOPNOTSUPP` where it has no Landlock.
    #[expect(unsafe_code, reason = "Landlock's system calls have no safe wrapper")]
    pub(super) fn new<'a>(writable: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        // SAFETY: with a null pointer and this flag the call only answers with a number.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<c_void>(),
                0_usize,
                CREATE_RULESET_VERSION,
            )
        };
        let mut rights = WRITE_FILE | REMOVE_AND_MAKE;
        match version {
            ..=0 => return Err(io::Error::last_os_error()),
            1 => {}
            2 => rights |= REFER,
            _ => rights |= REFER | TRUNCATE,
        }
        let attr = RulesetAttr {
            handled_access_fs: rights,
        };
        // SAFETY: the kernel reads `size_of::<RulesetAttr>()` bytes of `attr`, which is alive.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::from_ref(&attr),
                size_of::<RulesetAttr>(),
                0_u32,
            )
        };
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor (close-on-exec) for us alone.
        let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
        for path in writable {
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
                .open(path);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let is_folder = file.metadata()?.is_dir();
            let attr = PathBeneathAttr {
                allowed_access: if is_folder { rights } else { rights & OF_FILES },
                parent_fd: file.as_raw_fd(),
            };
            // SAFETY: the kernel reads `attr`, whose layout is that of linux/landlock.h, and takes
            // its own reference to the open folder.
            let added = unsafe {
                libc::syscall(
                    libc::SYS_landlock_add_rule,
                    ruleset.as_raw_fd(),
                    RULE_PATH_BENEATH,
                    std::ptr::from_ref(&attr).cast::<c_void>(),
                    0_u32,
                )
            };
            if added != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(ruleset))
    }

    /// Puts the rules in force for this thread and what it starts.
    ///
    /// Async-signal-safe: one system call.
    #[expect(unsafe_code, reason = "Landlock's system calls have no safe wrapper")]
    pub(super) fn enforce(&self) -> bool {
        // SAFETY: takes a descriptor and a number, no pointer.
        let done =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0_u32) };
        done == 0
    }
}
