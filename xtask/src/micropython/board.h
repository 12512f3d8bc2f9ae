// What the emulated board has beyond upstream's configuration of it (included last).
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_FATFS_ENABLE_LFN (1)
#define MICROPY_FATFS_NORTC (1)
#define MICROPY_FATFS_RPATH (2)

// A running program sees Ctrl-C: the line is looked at every so many bytecodes.
extern void board_poll(void);
#define BOARD_POLL_EVERY (256)
#define MICROPY_VM_HOOK_INIT static unsigned board_until_poll = BOARD_POLL_EVERY;
#define MICROPY_VM_HOOK_LOOP \
    if (--board_until_poll == 0) { \
        board_until_poll = BOARD_POLL_EVERY; \
        board_poll(); \
    }
#define MICROPY_VM_HOOK_RETURN MICROPY_VM_HOOK_LOOP
#define MICROPY_INTERNAL_EVENT_HOOK board_poll()
