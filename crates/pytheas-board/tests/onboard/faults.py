# Faults at a chosen file-system call of the package. `argv[2]`: `-`, `count`, `full` (the flash is, from
# the start on), or MODE:N with the mode
# die (the power is cut before call N), tear (call N writes half of it, then the power is cut), or the
# number of an errno that call N fails with.
import os
import sys

sys.path.insert(0, sys.argv[1])
mode, _, at = sys.argv[2].partition(":")
at = int(at or -1)
count = 0

import pytheas
from pytheas import file


def cut():
    import ffi

    ffi.open(None).func("v", "_exit", "i")(99)


def call(name, f, *a):
    global count
    count += 1
    if mode == "full" and name == "write":
        raise OSError(28)
    if count == at:
        if mode == "die":
            cut()
        if mode == "tear":
            if name == "write":
                f(bytes(a[0])[: len(a[0]) // 2])
            else:
                f(*a)
            cut()
        raise OSError(int(mode))
    return f(*a)


class File:
    def __init__(self, f):
        self.f = f

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        # A cut at this call leaves what was written before.
        call("close", self.f.close)

    def read(self, *n):
        return call("read", self.f.read, *n)

    def write(self, b):
        return call("write", self.f.write, b)

    def seek(self, n):
        return call("seek", self.f.seek, n)


class Os:
    def __getattr__(self, name):
        f = getattr(os, name)
        return lambda *a: call(name, f, *a)

    def sync(self):
        pass


if mode != "-":
    real = open
    for module in pytheas, file:
        module.open = lambda *a: File(call("open", real, *a))
        module.os = Os()
