# The board's side of an image for a slot (slots.rs): _pW is the package's writer. Needs reuse.py.
import sys
def _sp(a, z, n):
    # z bytes of what runs from a on, n at a time: there may be little memory left.
    d = _pW.disk
    i = _pW.r[3]
    if hasattr(d, "name"):
        with open(_pW.ROOT + d.name(i), "rb") as f:
            f.seek(a)
            while z > 0:
                _pW.feed()
                b = f.read(min(n, z))
                z -= len(b) or z
                yield b
    else:
        m = d.read(i, a + z)
        while z > 0:
            _pW.feed()
            yield m[a:a + min(n, z)]
            a += n
            z -= n
def _sq():
    # Two hashes of each block of it.
    e = _pW.runs()
    if e:
        _kq(e["size"], lambda n: _sp(0, e["size"], n))
def _sg():
    # Begins to write: copies of it, and what comes.
    global _kp, _pw
    _kp = _pW.write
    _pw = _kd
    _kb()
def _kc(a, n):
    for b in _sp(a, n, 512):
        _kp(b)
