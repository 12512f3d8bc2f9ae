# What a board's hardware does, for MicroPython's Unix port: a reset is the end of the process, the
# watchdog and the deadline of a confirmation are alarm(2), which kills it.
import sys

import ffi

alarm = ffi.open(None).func("I", "alarm", "I")


def reset():
    sys.exit(75)
