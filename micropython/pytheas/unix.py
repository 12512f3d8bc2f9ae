# What a board's hardware does, for MicroPython's Unix port: a reset is the end of the process; the
# deadline of a confirmation is alarm(2), which kills it. It stands in for `machine`, whose names it
# has, too. On CPython, which only runs tests, there is nothing of it but ROOT.
import os
import sys

ROOT = (os.getenv("PYTHEAS_ROOT") or "/pytheas") + "/"
try:
    import ffi
    import machine
except ImportError:
    ffi = None


class Timer:
    ONE_SHOT = 0

    def __init__(self, _):
        pass

    def init(self, mode, period, callback):
        _alarm(period // 1000)

    def deinit(self):
        _alarm(0)


def reset():
    _exit(75)


if ffi:
    _alarm = ffi.open(None).func("I", "alarm", "I")
    _exit = ffi.open(None).func("v", "_exit", "i")
    for _name in dir(machine):
        if _name[0] != "_" and _name not in ("Timer", "reset"):
            globals()[_name] = getattr(machine, _name)
    sys.modules["machine"] = sys.modules[__name__]
    _package = sys.modules["pytheas"]
    if _package.__path__[0] != "/":
        # What is imported later is found, too, when the app has changed the folder.
        _package.__path__ = os.getcwd().rstrip("/") + "/" + _package.__path__
