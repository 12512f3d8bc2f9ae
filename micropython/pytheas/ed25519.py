# Ed25519 (RFC 8032) verification in plain Python, made for boards: small first, then quick. SHA-512 in
# 64-bit bignums; then v(SB - hA - R) = 0, where v and u = vh mod L are half as long as L (Antipa et
# al., SAC 2005), so that one ladder of some 127 doublings serves S in two halves, A and R, with the
# sums of any of the four points in a table.
#
# As strict as RFC 8032 allows: S below L, points canonical and on the curve; v is odd, so a point
# of small order in R is not lost.


def _int(b):
    return int.from_bytes(b, "little")


_N = (
    # 2d, 2^127 B, L - 2^252
    b"\x59\xf1\xb2\x26\x94\x9b\xd6\xeb\x56\xb1\x83\x82\x9a\x14\xe0\x00\x30\xd1\xf3\xee\xf2\x80\x8e\x19"
    b"\xe7\xfc\xdf\x56\xdc\xd9\x06\x24\x93\x03\x36\x81\xac\xe4\x20\x09\x35\x4c\x45\xb2\x1e\x4c\x14\x21"
    b"\xe6\xe9\x8a\x7b\x8d\xfe\x1e\xc6\x3e\xc1\x35\xfa\xe7\x70\x4e\x1d\x61\x2e\xc2\xdd\x95\x57\xd1\xab"
    b"\x80\xe8\x63\x17\xb5\x48\xe4\x8a\x11\x9e\x72\xbe\x85\x8d\x51\x0a\xf2\x9f\xe0\x1c\xa9\x07\x28\x7b"
    b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14"
)
_D, _CX, _CY, _L = [_int(_N[i:i + 32]) for i in range(0, 128, 32)]
# Not written out: the compiler would store them as long decimal numbers.
_W = _int(b"\xff" * 8)
_M = _int(b"\xff" * 32) >> 1
_P = _M - 18
_L += _M + 1 >> 3


def _roots(n, k):
    # 64 bits behind the point of the k-th roots of the first n primes, by Newton's method.
    out = []
    primes = [1]
    p = 1
    y = _W + 1
    while len(out) < n:
        p += 1
        for q in primes[1:]:
            if not p % q:
                break
        else:
            q = primes[-1]
            primes.append(p)
            z = y + y * (p - q) // (k * q) + 1  # above the next root
            x = p << 64 * k
            while True:
                y = z
                z = (y + x // y >> 1) if k < 3 else (y + y + x // (y * y)) // 3
                if z >= y:
                    break
            out.append(y & _W)
    return out


def _hash(m):
    # SHA-512 of less than 112 bytes, as Ed25519 reads it: a number.
    M = _W
    D = M + 2  # a word twice in a row: its rotations are shifts
    n = len(m)
    m = m + b"\x80" + bytes(125 - n) + (n * 8).to_bytes(2, "big")
    W = []
    for i in range(0, 128, 8):
        W.append(int.from_bytes(m[i:i + 8], "big"))
    H = _roots(8, 2)
    K = _roots(80, 3)
    a, b, c, d, e, f, g, h = H
    bc = b ^ c
    for i in range(80):
        if i > 15:
            x = W[i - 15]
            y = W[i - 2]
            s = x * D
            t = y * D
            W.append((W[i - 16] + W[i - 7] + ((s >> 1 ^ s >> 8) & M ^ x >> 7)
                      + ((t >> 19 ^ t >> 61) & M ^ y >> 6)) & M)
        s = e * D
        h += ((s >> 14 ^ s >> 18 ^ s >> 41) & M) + (g ^ e & (f ^ g)) + K[i] + W[i]
        s = a * D
        ab = a ^ b
        # the majority of a, b, c from two differences
        s = h + ((s >> 28 ^ s >> 34 ^ s >> 39) & M) + (b ^ ab & bc)
        bc = ab
        h, g, f, e, d, c, b, a = g, f, e, (d + h) & M, c, b, a, s & M
    m = b""
    for x, y in zip(H, (a, b, c, d, e, f, g, h)):
        m += ((x + y) & M).to_bytes(8, "big")
    return _int(m) % _L


def _point(b):
    # x and y of an encoded point, None when it is none.
    P = _P
    y = _int(b)
    odd = y >> 255
    y &= _M
    v = y * y % P
    u = v - 1
    v = v * _D * (P + 1 >> 1) % P + 1
    # x = u v^3 (u v^7)^(2^252 - 3)
    w = v * v * v % P
    z = t = u * w * w * v % P
    n = 1
    for i in "1111010":
        z = pow(z, 1 << n, P) * z % P
        n *= 2
        if i > "0":
            z = z * z * t % P
            n += 1
    x = u * w * pow(z, 4, P) * t % P
    if (v * x * x - u) % P:
        # sqrt(-1)
        x = x * pow(2, P >> 2, P) % P
    if y >= P or (v * x * x - u) % P or not x and odd:
        return None
    return (P - x if x & 1 != odd else x), y


def _add(p, q):
    # The sum of two points (X, Y, Z, T), also of the same.
    P = _P
    X, Y, Z, T = p
    x, y, z, t = q
    z = 2 * Z * z
    t = T * t % P * _D
    T = (Y - X) * (y - x)
    y = (Y + X) * (y + x)
    M = _M
    # four sums as short as a product wants them: 2^255 is 19 modulo P
    x, y, Z, z = [(k & M) + 19 * (k >> 255) for k in (y - T, y + T, z - t, z + t)]
    return x * Z % P, z * y % P, Z * z % P, x * y % P


def verify(key, m, sig):
    # Whether it is the key's signature of a message of less than 48 bytes.
    s = _int(sig[32:])
    r = _L
    if len(key) != 32 or len(sig) != 64 or s >= r:
        return False
    A = _point(key)
    R = _point(sig[:32])
    if not A or not R:
        return False
    u = _hash(bytes(sig[:32]) + key + m)
    t = 0
    v = 1
    while u >> 127:
        q = r // u
        r, u = u, r - q * u
        t, v = v, t - q * v
    if not v & 1:
        u = r
        v = t
    s = s * v % _L
    x, y = R
    if v < 0:
        v = -v
    else:
        x = -x
    p = 0, 1, 1, 0
    table = [p]
    for x, y in (x, y), (-A[0], A[1]), (_CX, _CY), _point(b"X" + b"f" * 31):
        for q in table[:]:
            table.append(_add(q, (x, y, 1, x * y)))
    started = 0
    for i in range(255, -1, -1):
        n = 0
        for k in s & _M >> 128, s >> 127, u, v:
            n = n * 2 | k >> i & 1
        if started:
            p = _add(p, p)
        if n:
            p = _add(p, table[n])
            started = 1
    return not p[0] and p[1] == p[2]
