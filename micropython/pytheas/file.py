# Slots as image files (LittleFS, FAT, the Unix port), read into RAM to run.
import os

from . import ROOT, remove


def name(i):
    return "ab"[i] + ".romfs"


def read(i, size):
    with open(ROOT + name(i), "rb") as f:
        return f.read(size)


def iter(i, at, size):
    with open(ROOT + name(i), "rb") as f:
        f.seek(at)
        while at < size:
            b = f.read(min(4096, size - at))
            if not b:
                return
            at += len(b)
            yield b


def done(i, total):
    # Never all: the hub is asked for the rest.
    return min(os.stat(ROOT + name(i))[6], total - 1) & -4096


def erase(i, total, at):
    if not at:
        open(ROOT + name(i), "wb").close()
        v = os.statvfs(ROOT)
        if v[0] * v[4] < total + 8192:
            raise OSError(28)


def write(i, at, b):
    with open(ROOT + name(i), "r+b") as f:
        f.seek(at)
        f.write(b)


def clear(i):
    remove(name(i))
