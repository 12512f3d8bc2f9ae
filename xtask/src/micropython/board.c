// The emulated board's hardware: Arm's MPS2 AN385 as QEMU has it (application note 385).
//
// It differs from upstream's in what a board on a desk does: Ctrl-C stops a program, waiting costs
// the host nothing, there is a clock, and flash is kept. "Flash" is the board's 16 MiB of PSRAM,
// which the emulator maps to a file: killing the emulator is cutting the power.
//
//   0x21000000  4 MiB  ROMFS partition 0
//   0x21400000  4 MiB  ROMFS partition 1
//   0x21800000  4 MiB  LittleFS, mounted at / by frozen/_boot.py
//   0x21c00000  4 MiB  free
//
// No interrupt is ever taken: the timer and the line only end a wait (WFI).
#include <string.h>
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/objarray.h"
#include "py/ringbuf.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "extmod/vfs.h"
#include "shared/runtime/interrupt_char.h"
#include "shared/runtime/pyexec.h"
#include "uart.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPU_HZ (25000000)
#define UART0_CTRL REGISTER(0x40004008)
#define UART0_INTCLEAR REGISTER(0x4000400c)
#define UART0_RX_INTERRUPT (1u << 3)
#define FPGAIO_COUNTER REGISTER(0x40028018)
#define FPGAIO_PRESCALE REGISTER(0x4002801c)
#define SYST_CSR REGISTER(0xe000e010)
#define SYST_RVR REGISTER(0xe000e014)
#define SYST_CVR REGISTER(0xe000e018)
#define NVIC_ISER0 REGISTER(0xe000e100)
#define NVIC_ICPR0 REGISTER(0xe000e280)
#define ICSR REGISTER(0xe000ed04)
#define ICSR_PENDSTCLR (1u << 25)

static uint8_t line_bytes[1024];
static ringbuf_t line = {line_bytes, sizeof(line_bytes), 0, 0};

// Once, at the first use: the counter counts microseconds, a tick each millisecond ends a wait.
static void prepare(void) {
    static bool is_prepared;
    if (is_prepared) {
        return;
    }
    is_prepared = true;
    __asm volatile ("cpsid i");
    FPGAIO_PRESCALE = CPU_HZ / 1000000 - 1;
    UART0_CTRL |= UART0_RX_INTERRUPT;
    NVIC_ISER0 = 1;
    SYST_RVR = CPU_HZ / 1000 - 1;
    SYST_CVR = 0;
    SYST_CSR = 7;
}

static void wait(void) {
    __asm volatile ("wfi");
    UART0_INTCLEAR = 2;
    NVIC_ICPR0 = 1;
    ICSR = ICSR_PENDSTCLR;
}

// Takes what the line has, up to what there is room for.
void board_poll(void) {
    prepare();
    while (ringbuf_free(&line) > 0) {
        int c = uart_rx_chr();
        if (c == UART_RX_NO_CHAR) {
            return;
        }
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            ringbuf_put(&line, c);
        }
    }
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    board_poll();
    uintptr_t ready = flags & MP_STREAM_POLL_WR;
    if (ringbuf_avail(&line) > 0) {
        ready |= flags & MP_STREAM_POLL_RD;
    }
    return ready;
}

int mp_hal_stdin_rx_chr(void) {
    for (;;) {
        board_poll();
        int c = ringbuf_get(&line);
        if (c >= 0) {
            return c;
        }
        mp_handle_pending(true);
        wait();
    }
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size) {
    uart_tx_strn(text, size);
    return size;
}

// The counter has 32 bits, over an hour; nobody waits longer without asking.
static uint64_t microseconds(void) {
    static uint32_t last;
    static uint32_t rounds;
    prepare();
    uint32_t now = FPGAIO_COUNTER;
    if (now < last) {
        rounds += 1;
    }
    last = now;
    return (uint64_t)rounds << 32 | now;
}

mp_uint_t mp_hal_ticks_us(void) {
    return microseconds();
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return microseconds();
}

mp_uint_t mp_hal_ticks_ms(void) {
    return microseconds() / 1000;
}

uint64_t mp_hal_time_ns(void) {
    return microseconds() * 1000;
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t end = microseconds() + us;
    while (microseconds() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint64_t end = microseconds() + (uint64_t)ms * 1000;
    do {
        board_poll();
        mp_handle_pending(true);
        if (microseconds() + 1000 < end) {
            wait();
        }
    } while (microseconds() < end);
}

// `vfs.rom_ioctl`: the two partitions. They are memory, so nothing has to be erased; 4096 is what a
// flash chip would erase at once, and what deployers align to.
#define ROM_SIZE (0x400000)
#define ROM_BLOCK_SIZE (4096)
#define ROM_IOCTL_GET_BLOCK_SIZE (6)
static const mp_obj_array_t roms[] = {
    {{&mp_type_memoryview}, 'B', 0, ROM_SIZE, (void *)0x21000000},
    {{&mp_type_memoryview}, 'B', 0, ROM_SIZE, (void *)0x21400000},
};

static mp_obj_t answer(mp_int_t number) {
    return MP_OBJ_NEW_SMALL_INT(number);
}

mp_obj_t mp_vfs_rom_ioctl(size_t count, const mp_obj_t *args) {
    mp_int_t command = mp_obj_get_int(args[0]);
    if (command == MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS) {
        return answer(MP_ARRAY_SIZE(roms));
    }
    mp_uint_t which = count > 1 ? (mp_uint_t)mp_obj_get_int(args[1]) : 0;
    if (which >= MP_ARRAY_SIZE(roms)) {
        return answer(-MP_EINVAL);
    }
    uint8_t *rom = roms[which].items;
    switch (command) {
        case MP_VFS_ROM_IOCTL_GET_SEGMENT:
            return MP_OBJ_FROM_PTR(&roms[which]);
        case MP_VFS_ROM_IOCTL_WRITE_PREPARE: { // (command, id, [offset,] size) erases
            mp_uint_t offset = count > 3 ? (mp_uint_t)mp_obj_get_int(args[2]) : 0;
            mp_uint_t size = mp_obj_get_int(args[count - 1]);
            if (offset > ROM_SIZE || size > ROM_SIZE - offset) {
                return answer(-MP_EINVAL);
            }
            memset(rom + offset, 0xff, size);
            return answer(4); // no smaller writes
        }
        case MP_VFS_ROM_IOCTL_WRITE: { // (command, id, offset, buffer)
            mp_buffer_info_t data;
            mp_get_buffer_raise(args[3], &data, MP_BUFFER_READ);
            mp_uint_t offset = mp_obj_get_int(args[2]);
            if (offset > ROM_SIZE || data.len > ROM_SIZE - offset) {
                return answer(-MP_EINVAL);
            }
            memcpy(rom + offset, data.buf, data.len);
            return answer(0);
        }
        case MP_VFS_ROM_IOCTL_WRITE_COMPLETE:
            return answer(0);
        case ROM_IOCTL_GET_BLOCK_SIZE:
            return answer(ROM_BLOCK_SIZE);
        default:
            return answer(-MP_EINVAL);
    }
}

// After every reset: ROMFS at /rom, `_boot.py`, then the user's files unless a tool asked for none.
void board_start(void) {
    mp_vfs_mount_romfs_protected();
    pyexec_frozen_module("_boot.py", false);
    int result = pyexec_file_if_exists("boot.py");
    if (!(result & PYEXEC_FORCED_EXIT) && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
        pyexec_file_if_exists("main.py");
    }
}
