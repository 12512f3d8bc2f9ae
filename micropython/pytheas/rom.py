# Slots as ROMFS partitions: two, or one split at half. A partition is a block device (ESP32), or
# memory that `vfs.rom_ioctl` erases by the block, in older firmware only as a whole.
import sys
from vfs import rom_ioctl

from . import config, feed

ids = config.get("rom") or [0]
dev = rom_ioctl(2, ids[0]), rom_ioctl(2, ids[-1])
block = hasattr(dev[0], "ioctl")
bs = dev[0].ioctl(5, 0) if block else rom_ioctl(6, ids[0])
room = min(map(len, map(memoryview, dev)))
# Firmware with one partition (ESP32, RP2) has it under each number.
one = len(ids) < 2 or dev[0] is dev[1]
if one:
    room = room // 2 // bs * bs if bs > 0 else 0
# What the firmware mounted there by itself may be the other slot.
for p in "/rom", "/rom/lib":
    if p in sys.path:
        sys.path.remove(p)


def find(i):
    # Number of the device, where in it the slot begins.
    return (0, i * room) if one else (i, 0)


def read(i, size):
    p, o = find(i)
    return memoryview(dev[p])[o:o + min(size, room)]


def iter(i, at, size):
    d = read(i, size)
    while at < size:
        yield d[at:at + 512]
        at += 512


def done(i, total):
    # What was erased and is no longer blank was written; the last block may be torn.
    n = at = 0
    for b in iter(i, 0, total):
        at += 512
        if b != b"\xff" * len(b):
            n = at - 1
    return n // bs * bs if bs > 0 else 0


def erase(i, total, at):
    # Erases everything, or the block that may be torn.
    if total > room:
        raise OSError(28)
    p, o = find(i)
    if bs <= 0:
        return ok(rom_ioctl(3, ids[p], total))
    end = at + 1 if at else total
    while at < end:
        if block:
            dev[p].ioctl(6, (o + at) // bs)
        else:
            ok(rom_ioctl(3, ids[p], o + at, bs))
        at += bs
        feed()


def ok(e):
    if e and e < 0:
        raise OSError(-e)


def write(i, at, b):
    p, o = find(i)
    # Pages of the RP2 have 256 bytes.
    b = bytes(b) + b"\xff" * (-len(b) % 256)
    at += o
    if block:
        # Never across a block.
        for n in range(0, len(b), 512):
            dev[p].writeblocks((at + n) // bs, b[n:n + 512], (at + n) % bs)
    else:
        ok(rom_ioctl(4, ids[p], at, b))


clear = abs  # there is no room to give back
