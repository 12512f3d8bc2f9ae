# The board's side of a deploy into a ROMFS partition (rom.rs); needs files.py.
import vfs
def _rv(n):
    return memoryview(vfs.rom_ioctl(2, n))
def _rh(n, a, z):
    # Hash of a part of a partition.
    from hashlib import sha256
    return "".join(["%02x" % x for x in sha256(_rv(n)[a:a + z]).digest()])
def _rq(n, a, z, s):
    # Short hashes of its parts of s bytes.
    from hashlib import sha256
    from binascii import hexlify
    v = _rv(n)
    for i in range(a, a + z, s):
        print("b", hexlify(sha256(v[i:min(i + s, a + z)]).digest()[:8]).decode())
def _ri(x):
    if x is not None and x < 0:
        raise OSError(-x)
def _ro(n, z, b):
    # Makes n ready: b is what is erased at once, 0 when only all of it can be.
    global _rd, _rn, _rb
    _rn, _rb = n, b
    d = vfs.rom_ioctl(2, n)
    _rd = d if hasattr(d, "ioctl") else None
    if not b:
        _ri(vfs.rom_ioctl(3, n, z))
def _rs(a, z):
    # What comes goes to a; z bytes from there on are erased.
    global _ra
    _ra = a
    if _rb:
        for i in range(a, a + z, _rb):
            if _rd:
                _rd.ioctl(6, i // _rb)
            else:
                _ri(vfs.rom_ioctl(3, _rn, i, _rb))
def _pw(b):
    global _ra
    n = len(b)
    if n % 16:
        b = bytes(b) + b"\xff" * (-n % 16)
    if _rd:
        at = _ra
        while b:
            k = _rb - at % _rb
            _rd.writeblocks(at // _rb, b[:k], at % _rb)
            b = b[k:]
            at += k
    else:
        _ri(vfs.rom_ioctl(4, _rn, _ra, b))
    _ra += n
def _rc(n, a, z, h, t):
    # All is there: compared, then the text t says what is started.
    if not _rd:
        vfs.rom_ioctl(5, n)
    if _rh(n, a, z) != h:
        raise ValueError("what was written is not what was sent")
    with open("/.pytheas-rom.~", "w") as f:
        f.write(t)
    os.rename("/.pytheas-rom.~", "/.pytheas-rom")
