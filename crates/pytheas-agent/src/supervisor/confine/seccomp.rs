//! A small seccomp filter: what no app has to ask the kernel for is refused with `EPERM`.
//!
//! A deny-list, because the apps are anybody's: loading kernel code, rebooting, mounting, setting
//! the clock, looking into other processes, keyrings, tracing, and `io_uring`, which no filter sees
//! through. Programs of another CPU mode than the agent's (i386 and x32 on x86-64, 32-bit Arm on
//! AArch64) would pass by other numbers and are refused altogether.

/// Calls that are refused.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    #[cfg(target_arch = "arm")]
    404, // clock_settime64
    #[cfg(target_arch = "arm")]
    405, // clock_adjtime64
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(not(target_arch = "arm"))]
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The kernel's name of the CPU mode this agent was compiled for (linux/audit.h).
const AUDIT_ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else if cfg!(all(target_arch = "arm", target_endian = "little")) {
    Some(0x4000_0028)
} else {
    None
};

/// Where `struct seccomp_data` has the call's number and the CPU mode.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
/// Calls of x32, with other numbers in the same CPU mode.
const X32_BIT: u32 = 0x4000_0000;

/// The filter as the kernel takes it; none for a CPU it was not written for.
pub(super) fn filter() -> Option<Vec<libc::sock_filter>> {
    let arch = AUDIT_ARCH?;
    let load = |at| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let equal = |value, jump_then| jump(libc::BPF_JEQ, value, jump_then, 0);
    let answer = |value| op(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let denied = u8::try_from(DENIED.len()).ok()?;
    // From each comparison the way to the last instruction, which refuses.
    let mut filter = vec![
        load(ARCH_AT),
        jump(libc::BPF_JEQ, arch, 0, denied.checked_add(3)?),
        load(NUMBER_AT),
    ];
    filter.push(if cfg!(target_arch = "x86_64") {
        jump(libc::BPF_JGE, X32_BIT, denied + 1, 0)
    } else {
        jump(libc::BPF_JGE, 0, 0, 0)
    });
    for (at, number) in DENIED.iter().enumerate() {
        let left = denied - u8::try_from(at).ok()?;
        filter.push(equal(u32::try_from(*number).ok()?, left));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()));
    Some(filter)
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    // Codes are 16 bits wide (linux/filter.h); the constants are wider in libc only.
    let code = (code & 0xFFFF) as u16;
    libc::sock_filter { code, jt, jf, k }
}

fn jump(kind: u32, value: u32, then: u8, or: u8) -> libc::sock_filter {
    op(libc::BPF_JMP | kind | libc::BPF_K, value, then, or)
}

/// Puts the filter in force for this thread and what it starts.
///
/// Async-signal-safe: one system call.
#[expect(unsafe_code, reason = "seccomp filters have no safe wrapper")]
pub(super) fn enforce(filter: &[libc::sock_filter]) -> bool {
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `program` and the instructions it points to, both alive here, and
    // keeps a copy of its own; it writes to neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    done == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on one call, as the kernel's classic BPF does.
    fn run(filter: &[libc::sock_filter], arch: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let op = &filter[at];
            at += 1;
            let code = u32::from(op.code);
            let mut branch = |yes: bool| at += usize::from(if yes { op.jt } else { op.jf });
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                value = if op.k == ARCH_AT { arch } else { number };
            } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                branch(value == op.k);
            } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
                branch(value >= op.k);
            } else {
                return op.k;
            }
        }
    }

    #[test]
    fn what_is_listed_is_refused_and_nothing_else() {
        let filter = filter().unwrap();
        let arch = AUDIT_ARCH.unwrap();
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
        for number in 0..600_u32 {
            let listed = DENIED.contains(&libc::c_long::from(number));
            let expected = if listed {
                refused
            } else {
                libc::SECCOMP_RET_ALLOW
            };
            assert_eq!(run(&filter, arch, number), expected, "{number}");
        }
        assert_eq!(run(&filter, 0x4000_0003, 1), refused, "i386");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(&filter, arch, X32_BIT | 1), refused, "x32");
    }
}
