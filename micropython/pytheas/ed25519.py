# Ed25519 (RFC 8032) verification in plain Python, made for boards: SHA-512 in 64-bit bignums, then
# v(SB - hA - R) = 0, where v and u = vh mod L are half as long as L (Antipa et al., SAC 2005), so
# that one ladder of some 127 doublings serves S in two halves, A and R. Numbers are kept modulo
# 2^256 - 38 and only as small as they must be.
#
# As strict as RFC 8032 allows: S below L, points canonical and on the curve; v is odd, so a point
# of small order in R is not lost.

_P = (1 << 255) - 19
_L = (1 << 252) + 27742317777372353535851937790883648493
_M = (1 << 256) - 1
_N = (
    b"\xa3\x78\x59\x13\xca\x4d\xeb\x75\xab\xd8\x41\x41\x4d\x0a\x70\x00\x98\xe8\x79\x77\x79\x40\xc7\x8c"
    b"\x73\xfe\x6f\x2b\xee\x6c\x03\x52\xb0\xa0\x0e\x4a\x27\x1b\xee\xc4\x78\xe4\x2f\xad\x06\x18\x43\x2f"
    b"\xa7\xd7\xfb\x3d\x99\x00\x4d\x2b\x0b\xdf\xc1\x4f\x80\x24\x83\x2b\x1a\xd5\x25\x8f\x60\x2d\x56\xc9"
    b"\xb2\xa7\x25\x95\x60\xc7\x2c\x69\x5c\xdc\xd6\xfd\x31\xe2\xa4\xc0\xfe\x53\x6e\xcd\xd3\x36\x69\x21"
    b"\x58\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"
    b"\x66\x66\x66\x66\x66\x66\x66\x66\x93\x03\x36\x81\xac\xe4\x20\x09\x35\x4c\x45\xb2\x1e\x4c\x14\x21"
    b"\xe6\xe9\x8a\x7b\x8d\xfe\x1e\xc6\x3e\xc1\x35\xfa\xe7\x70\x4e\x1d\x61\x2e\xc2\xdd\x95\x57\xd1\xab"
    b"\x80\xe8\x63\x17\xb5\x48\xe4\x8a\x11\x9e\x72\xbe\x85\x8d\x51\x0a\xf2\x9f\xe0\x1c\xa9\x07\x28\x7b"
)
# d, sqrt(-1), B and 2^127 B
_D, _I, _BX, _BY, _CX, _CY = [int.from_bytes(_N[i:i + 32], "little") for i in range(0, 192, 32)]


def _roots(n, k):
    # 64 bits behind the point of the k-th roots of the first n primes, by Newton's method.
    out = []
    primes = []
    p = 1
    y = 1 << 64
    while len(out) < n:
        p += 1
        for q in primes:
            if not p % q:
                break
        else:
            q = 0
        if q:
            continue
        primes.append(p)
        y += y // (p // 8 + 1)  # above the next root
        while True:
            z = ((k - 1) * y + (p << 64 * k) // y ** (k - 1)) // k
            if z >= y:
                break
            y = z
        out.append(y & 0xffffffffffffffff)
    return out


def sha512(m):
    M = 0xffffffffffffffff
    D = (1 << 64) + 1  # a word twice in a row: its rotations are shifts
    num = int.from_bytes
    n = len(m)
    m = m + b"\x80" + bytes(-(n + 17) % 128 + 8) + (n * 8).to_bytes(8, "big")
    H = _roots(8, 2)
    K = _roots(80, 3)
    for o in range(0, len(m), 128):
        W = [num(m[i:i + 8], "big") for i in range(o, o + 128, 8)]
        a, b, c, d, e, f, g, h = H
        bc = b ^ c
        for i in range(80):
            j = i & 15
            w = W[j]
            if i > 15:
                x = W[(i + 1) & 15]
                y = W[(i + 14) & 15]
                s = x * D
                t = y * D
                w = W[j] = (w + W[(i + 9) & 15] + ((s >> 1 ^ s >> 8) & M ^ x >> 7)
                            + ((t >> 19 ^ t >> 61) & M ^ y >> 6)) & M
            s = e * D
            h += (((s >> 14 ^ s >> 18 ^ s >> 41) & M) + (g ^ e & (f ^ g))
                  + K[i] + w)
            s = a * D
            ab = a ^ b
            # the majority of a, b, c from two differences
            s = h + ((s >> 28 ^ s >> 34 ^ s >> 39) & M) + (b ^ ab & bc)
            bc = ab
            h, g, f, e, d, c, b, a = g, f, e, (d + h) & M, c, b, a, s & M
        H = [(x + y) & M for x, y in zip(H, (a, b, c, d, e, f, g, h))]
    return b"".join([x.to_bytes(8, "big") for x in H])


# One fold (x & _M) + 38 * (x >> 256) makes a product of two numbers of b bits 2 b - 250 bits long: a
# result that is multiplied again more than once is folded twice.


def _mul(a, b):
    M = _M
    a *= b
    a = (a & M) + 38 * (a >> 256)
    return (a & M) + 38 * (a >> 256)


def _squares(a, n):
    M = _M
    while n:
        a *= a
        a = (a & M) + 38 * (a >> 256)
        if n & 1:
            a = (a & M) + 38 * (a >> 256)
        n -= 1
    return (a & M) + 38 * (a >> 256)


def _point(b):
    # x and y of an encoded point, None when it is none.
    y = int.from_bytes(b, "little")
    odd = y >> 255
    y &= _M >> 1
    if y >= _P:
        return None
    v = y * y % _P
    u = v - 1
    v = v * _D % _P + 1
    # x = u v^3 (u v^7)^(2^252 - 3), by powers 2^n - 1
    w = _mul(v, _mul(v, v))
    x = z = _mul(u, _mul(w, _mul(w, v)))
    for n, k in ((1, 0), (2, 0), (1, 1), (5, 0), (10, 0), (20, 0), (10, 10), (50, 0), (100, 0),
                 (50, 50), (2, 1)):
        # the power to multiply with: z itself, x^(2^10 - 1), x^(2^50 - 1), or the last
        t = z if k == 1 else ten if k == 10 else fifty if k == 50 else x
        x = _mul(_squares(x, n), t)
        if n == 5:
            ten = x
        if n == 10 and k:
            fifty = x
    x = _mul(_mul(u, w), x)
    t = (v * x * x - u) % _P
    if t:
        if (t + 2 * u) % _P:
            return None
        x *= _I
    x %= _P
    if not x and odd:
        return None
    return (_P - x if x & 1 != odd else x), y


def _digits(k):
    # Odd digits between -7 and 7, lowest first.
    out = []
    while k:
        d = 0
        if k & 1:
            d = k & 15
            if d > 8:
                d -= 16
            k -= d
        out.append(d)
        k >>= 1
    return out


def _add(p, q):
    # p: (X, Y, Z, E, H) with T = E H; q: (Y + X, Y - X, 2 Z, 2 d T)
    M = _M
    X, Y, Z, E, H = p
    a, b, z, t = q
    A = (Y - X) * b
    B = (Y + X) * a
    T = E * H
    C = ((T & M) + 38 * (T >> 256)) * t
    D = Z * z
    D = (D & M) + 38 * (D >> 256)
    C = (C & M) + 38 * (C >> 256)
    E = B - A
    H = B + A
    return _end((E & M) + 38 * (E >> 256), D - C, D + C, (H & M) + 38 * (H >> 256))


def _end(E, F, G, H):
    # The product that both addition and doubling end with.
    M = _M
    X = E * F
    Y = G * H
    Z = F * G
    X = (X & M) + 38 * (X >> 256)
    Y = (Y & M) + 38 * (Y >> 256)
    Z = (Z & M) + 38 * (Z >> 256)
    return ((X & M) + 38 * (X >> 256), (Y & M) + 38 * (Y >> 256), (Z & M) + 38 * (Z >> 256), E, H)


def _double(p):
    M = _M
    X, Y, Z, _, _ = p
    t = X + Y
    E = t * t
    A = X * X
    B = Y * Y
    H = A + B
    G = A - B
    E = H - E
    Z = Z * Z << 1
    F = Z + G
    E = (E & M) + 38 * (E >> 256)
    F = (F & M) + 38 * (F >> 256)
    G = (G & M) + 38 * (G >> 256)
    H = (H & M) + 38 * (H >> 256)
    return _end(E, F, G, H)


def _ready(p):
    # A point as _add wants its second one.
    X, Y, Z, E, H = p
    return Y + X, Y - X, Z + Z, _mul(_mul(E, H), 2 * _D)


def _odd(x, y):
    # 1, 3, 5 and 7 times a point.
    p = (x, y, 1, x, y)
    out = [_ready(p)]
    d = _ready(_double(p))
    for _ in range(3):
        p = _add(p, d)
        out.append(_ready(p))
    return out


def verify(key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    if len(key) != 32 or len(signature) != 64 or s >= _L:
        return False
    A = _point(key)
    R = _point(signature[:32])
    if not A or not R:
        return False
    r = _L
    u = int.from_bytes(sha512(bytes(signature[:32]) + key + message), "little") % r
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
    terms = ((_digits(s & (1 << 127) - 1), _odd(_BX, _BY)), (_digits(s >> 127), _odd(_CX, _CY)),
             (_digits(u), _odd(-A[0], A[1])), (_digits(v), _odd(x, y)))
    p = (0, 1, 1, 0, 1)
    for i in range(max([len(d) for d, _ in terms]) - 1, -1, -1):
        p = _double(p)
        for d, table in terms:
            if i < len(d) and d[i]:
                n = d[i]
                if n > 0:
                    p = _add(p, table[n >> 1])
                else:
                    a, b, z, t = table[-n >> 1]
                    p = _add(p, (b, a, z, -t))
    return p[0] % _P == 0 and (p[1] - p[2]) % _P == 0
