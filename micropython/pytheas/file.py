# Slots as image files (LittleFS, FAT, the Unix port), read into RAM to run.
import os

from .slots import ROOT, remove

STEP = 4096  # bytes that are written at once


class File:
    def name(self, i):
        return "ab"[i] + ".romfs"

    def open(self, i, mode="rb"):
        return open(ROOT + "/" + self.name(i), mode)

    def parts(self, i, at, end, step=STEP):
        with self.open(i) as f:
            f.seek(at)
            while at < end:
                b = f.read(min(step, end - at))
                if not b:
                    return
                at += len(b)
                yield b

    def done(self, i, total):
        return os.stat(ROOT + "/" + self.name(i))[6] // STEP * STEP

    def prepare(self, i, total, at):
        if not at:
            self.open(i, "wb").close()
            v = os.statvfs(ROOT)
            if v[0] * v[4] < total + 8192:
                raise OSError(28)

    def write(self, i, at, b):
        with self.open(i, "r+b") as f:
            f.seek(at)
            f.write(b)

    def drop(self, i):
        remove(self.name(i))
