# Files of the board: what `fs` verbs and deploys call (files.rs, deploy/files.rs).
import os
def _px():
    # What an earlier transfer left open when it failed. A file that is only forgotten is closed while
    # memory is collected, where blocks that are Python's cannot be written: that tears a file system.
    try:
        _pF.close()
    except Exception:
        pass
_px()
_pF = None
def _pm(p):
    a = ""
    x = 0
    for d in p.split("/")[:-1]:
        a += d + "/"
        try:
            os.mkdir(a[:-1] or "/")
            x = 0
        except OSError as e:
            # It is there already, or can never be.
            if e.errno in (17, 30):
                x = e.errno
    if x == 30:
        raise OSError(x)
def _ph(p):
    from hashlib import sha256
    h = sha256()
    b = memoryview(bytearray(1024))
    with open(p, "rb") as f:
        while 1:
            n = f.readinto(b)
            if not n:
                break
            h.update(b[:n])
    return "".join(["%02x" % x for x in h.digest()])
def _pn(p):
    global _pF, _pw
    _px()
    _pm(p)
    _pF = open(p, "wb")
    _pw = _pF.write
def _pc(t, p, h):
    _pF.close()
    if h and _ph(t) != h:
        os.remove(t)
        raise ValueError("what was written is not what was sent: " + p)
    if t != p:
        _pm(p)
        try:
            os.rename(t, p)
        except OSError:
            os.remove(t)
            raise
