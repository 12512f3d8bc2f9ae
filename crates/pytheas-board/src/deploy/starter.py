# Written by `pytheas board deploy`: starts the image that /.pytheas-rom names.
import os, sys, vfs


def _start():
    with open("/.pytheas-rom") as f:
        part, at, size, _, entry = f.read().strip().split(" ")
    rom = memoryview(vfs.rom_ioctl(2, int(part)))[int(at):int(at) + int(size)]
    vfs.mount(vfs.VfsRom(rom), "/app")
    sys.path[:0] = ["/app", "/app/lib"]
    # For the host, which stops programs: from here on the app is there.
    print(end="\x16")
    if entry == "main" and "main.py" in os.listdir("/app"):
        # As if it stood in the file system: its `__name__` is `__main__`.
        execfile("/app/main.py", globals())
    elif entry != "-":
        module, _, function = entry.partition(":")
        module = __import__(module, None, None, ("*",))
        if function:
            done = getattr(module, function)()
            if hasattr(done, "send"):
                import asyncio

                asyncio.run(done)


_start()
