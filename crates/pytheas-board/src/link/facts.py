# What this board is: one line for each fact (facts.rs reads them).
import sys
i = sys.implementation
print("name", i.name)
print("version", ".".join([str(x) for x in i.version[:3]]))
print("build", sys.version)
print("platform", sys.platform)
print("mpy", getattr(i, "_mpy", 0))
print("machine", getattr(i, "_machine", ""))
print("stream", int(hasattr(sys.stdin, "buffer") and sys.platform != "webassembly"))
try:
    import gc
    gc.collect()
    print("heap", gc.mem_free(), gc.mem_alloc())
except Exception:
    pass
try:
    import machine
    print("id", "".join(["%02x" % x for x in machine.unique_id()]))
except Exception:
    pass
for n in ("deflate", "binascii", "ssl", "network"):
    try:
        __import__(n)
        print("has", n)
    except Exception:
        pass
try:
    from hashlib import sha256
    print("has sha256")
except Exception:
    pass
try:
    import os
    import vfs
except ImportError:
    vfs = None
try:
    t = [(p, type(f).__name__) for f, p in vfs.mount()]
except Exception:
    t = [("/", "")]
for p, n in t:
    try:
        s = os.statvfs(p)
        print("fs", s[0], s[0] * s[2], s[0] * s[3], s[9], n or "-", p)
    except Exception:
        pass
try:
    for n in range(vfs.rom_ioctl(1)):
        d = vfs.rom_ioctl(2, n)
        if isinstance(d, int):
            continue
        if hasattr(d, "ioctl"):
            b = d.ioctl(5, 0)
            print("rom", n, d.ioctl(4, 0) * b, b, "device")
        else:
            try:
                b = vfs.rom_ioctl(6, n)
            except Exception:
                b = 0
            print("rom", n, len(d), b if b > 0 else 0, "memory")
except Exception:
    pass
for p in ("/pytheas/config.json", "/.pytheas-rom", "/main.py"):
    try:
        os.stat(p)
        print("file", p)
    except Exception:
        pass
for p in sys.path:
    try:
        if "__init__.mpy" in os.listdir(p + "/pytheas"):
            print("file pytheas")
    except Exception:
        pass
