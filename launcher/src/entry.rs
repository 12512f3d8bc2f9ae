//! Where the kernel enters the program: `_start` of each CPU gives the initial stack to `start`.

use core::arch::global_asm;

use crate::start;

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
