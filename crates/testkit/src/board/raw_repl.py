# The raw REPL for the Unix port, which has none before 1.27: no raw paste, no editing. The working
# folder becomes `/`.
import os, sys, vfs

here = os.getcwd()
vfs.umount("/")
vfs.mount(vfs.VfsPosix(here), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]
line, out = sys.stdin.buffer, sys.stdout.buffer
BANNER = b"raw REPL; CTRL-B to exit\r\n>"
raw = len(sys.argv) > 1
names = {"__name__": "__main__"}
code = b""
if raw:
    out.write(b"MPY: soft reboot\r\n" + BANNER)
while True:
    byte = line.read(1)
    if not byte:
        break
    if byte == b"\x01":
        raw, code = True, b""
        out.write(b"\r\n" + BANNER)
    elif byte == b"\x02":
        raw, code = False, b""
        out.write(b"\r\nMicroPython\r\n>>> ")
    elif byte == b"\x03":
        code = b""
        if not raw:
            out.write(b"\r\n>>> ")
    elif not raw:
        if byte == b"\x04":
            sys.exit(4)
    elif byte == b"\x05" and not code:
        line.read(2)
        out.write(b"R\x00")  # raw paste is known and not here
    elif byte != b"\x04":
        code += byte
    else:
        out.write(b"OK")
        if not code:
            out.write(b"\r\n")
            sys.exit(3)
        failure = None
        try:
            exec(code, names)
        except SystemExit:
            out.write(b"\x04\x04")
            sys.exit(3)
        except BaseException as error:
            failure = error
        out.write(b"\x04")
        if failure is not None:
            sys.print_exception(failure)
        out.write(b"\x04>")
        code = b""
