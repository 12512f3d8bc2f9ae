# Mounts the board's file system, as the `_boot.py` of a port for chips does.
import sys, uctypes, vfs


class Flash:
    # Blocks over memory that is a file on the host: each write is one copy, and outlives the emulator.
    SIZE = 512

    def __init__(self, address, size):
        self.memory = memoryview(uctypes.bytearray_at(address, size))

    def readblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        buffer[:] = self.memory[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        self.memory[at : at + len(buffer)] = buffer

    def ioctl(self, op, _):
        if op == 4:
            return len(self.memory) // self.SIZE
        if op == 5:
            return self.SIZE
        return 0


flash = Flash(0x21800000, 0x400000)
try:
    fs = vfs.VfsLfs2(flash)
except OSError:
    vfs.VfsLfs2.mkfs(flash)
    fs = vfs.VfsLfs2(flash)
vfs.mount(fs, "/")
sys.path.append("/lib")
