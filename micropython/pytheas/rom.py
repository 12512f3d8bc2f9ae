# Slots as ROMFS partitions: two, or one split at half. A partition is a block device (ESP32), or
# memory that `vfs.rom_ioctl` erases by the block, in older firmware only as a whole.
import vfs

from .slots import feed


class Rom:
    def __init__(self, ids):
        self.io = vfs.rom_ioctl
        self.devs = [self.io(2, i) for i in ids]
        self.ids = ids
        d = self.devs[0]
        self.bs = d.ioctl(5, 0) if hasattr(d, "ioctl") else self.io(6, ids[0])
        n = len(memoryview(d))
        if len(ids) < 2:
            n = n // 2 // self.bs * self.bs if self.bs > 0 else 0
        self.size = n

    def where(self, i):
        p = i if len(self.ids) > 1 else 0
        return self.devs[p], self.ids[p], 0 if p or not i else self.size

    def parts(self, i, at, end, step=4096):
        d, _, o = self.where(i)
        d = memoryview(d)[o:o + min(end, self.size)]
        while at < end:
            yield d[at:at + step]
            at += step

    def done(self, i, total):
        # What was erased and is no longer blank was written; the last block may be torn.
        n = at = 0
        for b in self.parts(i, 0, total, 512):
            at += 512
            if b != b"\xff" * len(b):
                n = at - 1
        return n // self.bs * self.bs if self.bs > 0 else 0

    def prepare(self, i, total, at):
        # Erases everything, or the block that may be torn.
        if total > self.size:
            raise OSError(28)
        d, p, o = self.where(i)
        if self.bs <= 0:
            return self.ok(self.io(3, p, total))
        end = at + 1 if at else total
        while at < end:
            if hasattr(d, "ioctl"):
                d.ioctl(6, (o + at) // self.bs)
            else:
                self.ok(self.io(3, p, o + at, self.bs))
            at += self.bs
            feed()

    def ok(self, r):
        if r and r < 0:
            raise OSError(-r)

    def write(self, i, at, b):
        d, p, o = self.where(i)
        b = bytes(b) + b"\xff" * (-len(b) % 16)
        at += o
        if hasattr(d, "ioctl"):
            # Never across a block.
            for n in range(0, len(b), 512):
                d.writeblocks((at + n) // self.bs, b[n:n + 512], (at + n) % self.bs)
        else:
            self.ok(self.io(4, p, at, b))

    def drop(self, i):
        pass
