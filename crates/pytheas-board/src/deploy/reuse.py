# Builds new content from what the board has and what comes over the line (reuse.rs). The owner
# defines _kc (copies), _ks (goes somewhere) and _kp (takes bytes).
def _kq(s, p):
    # Two hashes of each block of s bytes, which p(size of a block) gives, in one line.
    from binascii import crc32
    from hashlib import sha256
    w = sys.stdout.write
    n = 256
    while n < s // 128 and n < 8192:
        n *= 2
    w("k %d %d " % (n, s))
    for b in p(n):
        h = sha256(b).digest()
        w("%08x%02x%02x%02x%02x" % (crc32(b), h[0], h[1], h[2], h[3]))
    w("\n")
def _kb():
    # Begins: nothing is to be done yet.
    global _kl, _kw
    _kl = []
    _kw = 0
def _kg(l):
    # Does what l says, until bytes must come.
    global _kw
    _kl.extend(l)
    while _kl and not _kw:
        k, a, n = _kl.pop(0)
        if k == 1:
            _kc(a, n)
        elif k:
            _ks(k, a, n)
        else:
            _kw = n
def _kd(b):
    global _kw
    while b:
        if not _kw:
            raise ValueError("more came than was said")
        n = min(_kw, len(b))
        _kp(b[:n])
        _kw -= n
        b = b[n:]
        if not _kw:
            _kg(())
