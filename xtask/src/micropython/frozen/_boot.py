# Mounts the board's file system, as the `_boot.py` of a port for chips does.
import sys, uctypes, vfs


class Flash:
    # Blocks over memory that is a file on the host: each write is one copy, and outlives the emulator.
    SIZE = 512

    def __init__(self, address, size):
        self.memory = memoryview(uctypes.bytearray_at(address, size))
        self.sizes = {4: size // self.SIZE, 5: self.SIZE}

    def readblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        buffer[:] = self.memory[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        self.memory[at : at + len(buffer)] = buffer

    # No branches in here: at a branch a Ctrl-C would be raised in the middle of the file system's work,
    # which the drivers of chips, being C, never do.
    def ioctl(self, op, _):
        return self.sizes.get(op, 0)


flash = Flash(0x21800000, 0x400000)
try:
    fs = vfs.VfsLfs2(flash)
except OSError:
    vfs.VfsLfs2.mkfs(flash)
    fs = vfs.VfsLfs2(flash)
vfs.mount(fs, "/")
sys.path.append("/lib")
