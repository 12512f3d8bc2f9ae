# Ed25519 (RFC 8032) verification in plain Python, made for boards: SHA-512 in 64-bit bignums, then
# v(SB - hA - R) = 0, where v and u = vh mod L are half as long as L (Antipa et al., SAC 2005), so
# that one ladder of some 127 doublings serves S in two halves, A and R. Digits of width 4, multiples
# of B and 2^127 B from a table, numbers modulo 2^256 - 38 and only as small as they must be.
#
# As strict as RFC 8032 allows: S below L, points canonical and on the curve; v is odd, so a point
# of small order in R is not lost. The table comes from `bench/board_tables.py`.

_P = (1 << 255) - 19
_L = (1 << 252) + 27742317777372353535851937790883648493
_M = (1 << 256) - 1
_D = 0x52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3
_I = 0x2b8324804fc1df0b2b4d00993dfbd7a72f431806ad2fe478c4ee1b274a0ea0b0  # sqrt(-1)
_K = (
    b"\x42\x8a\x2f\x98\xd7\x28\xae\x22\x71\x37\x44\x91\x23\xef\x65\xcd\xb5\xc0\xfb\xcf\xec\x4d"
    b"\x3b\x2f\xe9\xb5\xdb\xa5\x81\x89\xdb\xbc\x39\x56\xc2\x5b\xf3\x48\xb5\x38\x59\xf1\x11\xf1"
    b"\xb6\x05\xd0\x19\x92\x3f\x82\xa4\xaf\x19\x4f\x9b\xab\x1c\x5e\xd5\xda\x6d\x81\x18\xd8\x07"
    b"\xaa\x98\xa3\x03\x02\x42\x12\x83\x5b\x01\x45\x70\x6f\xbe\x24\x31\x85\xbe\x4e\xe4\xb2\x8c"
    b"\x55\x0c\x7d\xc3\xd5\xff\xb4\xe2\x72\xbe\x5d\x74\xf2\x7b\x89\x6f\x80\xde\xb1\xfe\x3b\x16"
    b"\x96\xb1\x9b\xdc\x06\xa7\x25\xc7\x12\x35\xc1\x9b\xf1\x74\xcf\x69\x26\x94\xe4\x9b\x69\xc1"
    b"\x9e\xf1\x4a\xd2\xef\xbe\x47\x86\x38\x4f\x25\xe3\x0f\xc1\x9d\xc6\x8b\x8c\xd5\xb5\x24\x0c"
    b"\xa1\xcc\x77\xac\x9c\x65\x2d\xe9\x2c\x6f\x59\x2b\x02\x75\x4a\x74\x84\xaa\x6e\xa6\xe4\x83"
    b"\x5c\xb0\xa9\xdc\xbd\x41\xfb\xd4\x76\xf9\x88\xda\x83\x11\x53\xb5\x98\x3e\x51\x52\xee\x66"
    b"\xdf\xab\xa8\x31\xc6\x6d\x2d\xb4\x32\x10\xb0\x03\x27\xc8\x98\xfb\x21\x3f\xbf\x59\x7f\xc7"
    b"\xbe\xef\x0e\xe4\xc6\xe0\x0b\xf3\x3d\xa8\x8f\xc2\xd5\xa7\x91\x47\x93\x0a\xa7\x25\x06\xca"
    b"\x63\x51\xe0\x03\x82\x6f\x14\x29\x29\x67\x0a\x0e\x6e\x70\x27\xb7\x0a\x85\x46\xd2\x2f\xfc"
    b"\x2e\x1b\x21\x38\x5c\x26\xc9\x26\x4d\x2c\x6d\xfc\x5a\xc4\x2a\xed\x53\x38\x0d\x13\x9d\x95"
    b"\xb3\xdf\x65\x0a\x73\x54\x8b\xaf\x63\xde\x76\x6a\x0a\xbb\x3c\x77\xb2\xa8\x81\xc2\xc9\x2e"
    b"\x47\xed\xae\xe6\x92\x72\x2c\x85\x14\x82\x35\x3b\xa2\xbf\xe8\xa1\x4c\xf1\x03\x64\xa8\x1a"
    b"\x66\x4b\xbc\x42\x30\x01\xc2\x4b\x8b\x70\xd0\xf8\x97\x91\xc7\x6c\x51\xa3\x06\x54\xbe\x30"
    b"\xd1\x92\xe8\x19\xd6\xef\x52\x18\xd6\x99\x06\x24\x55\x65\xa9\x10\xf4\x0e\x35\x85\x57\x71"
    b"\x20\x2a\x10\x6a\xa0\x70\x32\xbb\xd1\xb8\x19\xa4\xc1\x16\xb8\xd2\xd0\xc8\x1e\x37\x6c\x08"
    b"\x51\x41\xab\x53\x27\x48\x77\x4c\xdf\x8e\xeb\x99\x34\xb0\xbc\xb5\xe1\x9b\x48\xa8\x39\x1c"
    b"\x0c\xb3\xc5\xc9\x5a\x63\x4e\xd8\xaa\x4a\xe3\x41\x8a\xcb\x5b\x9c\xca\x4f\x77\x63\xe3\x73"
    b"\x68\x2e\x6f\xf3\xd6\xb2\xb8\xa3\x74\x8f\x82\xee\x5d\xef\xb2\xfc\x78\xa5\x63\x6f\x43\x17"
    b"\x2f\x60\x84\xc8\x78\x14\xa1\xf0\xab\x72\x8c\xc7\x02\x08\x1a\x64\x39\xec\x90\xbe\xff\xfa"
    b"\x23\x63\x1e\x28\xa4\x50\x6c\xeb\xde\x82\xbd\xe9\xbe\xf9\xa3\xf7\xb2\xc6\x79\x15\xc6\x71"
    b"\x78\xf2\xe3\x72\x53\x2b\xca\x27\x3e\xce\xea\x26\x61\x9c\xd1\x86\xb8\xc7\x21\xc0\xc2\x07"
    b"\xea\xda\x7d\xd6\xcd\xe0\xeb\x1e\xf5\x7d\x4f\x7f\xee\x6e\xd1\x78\x06\xf0\x67\xaa\x72\x17"
    b"\x6f\xba\x0a\x63\x7d\xc5\xa2\xc8\x98\xa6\x11\x3f\x98\x04\xbe\xf9\x0d\xae\x1b\x71\x0b\x35"
    b"\x13\x1c\x47\x1b\x28\xdb\x77\xf5\x23\x04\x7d\x84\x32\xca\xab\x7b\x40\xc7\x24\x93\x3c\x9e"
    b"\xbe\x0a\x15\xc9\xbe\xbc\x43\x1d\x67\xc4\x9c\x10\x0d\x4c\x4c\xc5\xd4\xbe\xcb\x3e\x42\xb6"
    b"\x59\x7f\x29\x9c\xfc\x65\x7e\x2a\x5f\xcb\x6f\xab\x3a\xd6\xfa\xec\x6c\x44\x19\x8c\x4a\x47"
    b"\x58\x17"
)
_H = (
    b"\x6a\x09\xe6\x67\xf3\xbc\xc9\x08\xbb\x67\xae\x85\x84\xca\xa7\x3b\x3c\x6e\xf3\x72\xfe\x94"
    b"\xf8\x2b\xa5\x4f\xf5\x3a\x5f\x1d\x36\xf1\x51\x0e\x52\x7f\xad\xe6\x82\xd1\x9b\x05\x68\x8c"
    b"\x2b\x3e\x6c\x1f\x1f\x83\xd9\xab\xfb\x41\xbd\x6b\x5b\xe0\xcd\x19\x13\x7e\x21\x79"
)
_B = (
    b"\x1a\xd5\x25\x8f\x60\x2d\x56\xc9\xb2\xa7\x25\x95\x60\xc7\x2c\x69\x5c\xdc\xd6\xfd\x31\xe2"
    b"\xa4\xc0\xfe\x53\x6e\xcd\xd3\x36\x69\x21\x58\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"
    b"\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x5c\xe2"
    b"\xf8\xd3\x5f\x48\x62\xac\x86\x48\x62\x81\x19\x98\x43\x63\x3a\xc8\xda\x3e\x74\xae\xf4\x1f"
    b"\x49\x8f\x92\x22\x4a\x9c\xae\x67\xd4\xb4\xf5\x78\x48\x68\xc3\x02\x04\x03\x24\x67\x17\xec"
    b"\x16\x9f\xf7\x9e\x26\x60\x8e\xa1\x26\xa1\xab\x69\xee\x77\xd1\xb1\x67\x12\x33\xf2\x2e\x32"
    b"\xc0\x9c\x40\x91\xa5\xe1\x1b\x3e\xf9\x19\x28\x5c\xde\xa5\x2d\xd1\xf7\x7c\xef\xfc\x7b\x58"
    b"\xe3\xad\x3e\xa7\xfd\x49\xed\xc8\x76\xd6\x83\x1f\xd2\x10\x5d\x0b\x43\x89\xca\x2e\x28\x31"
    b"\x66\x46\x92\x89\x14\x6e\x2c\xe0\x6f\xae\xfe\x98\xb2\x25\x48\x5f\x07\x41\x0e\xf5\x1a\x98"
    b"\x55\x58\x95\xce\xf1\xbb\xf3\x09\xe8\x83\x07\x81\x1d\x4b\x19\xee\xe3\xe9\x4e\xbd\xf4\xfc"
    b"\x85\x86\x56\x14\xb8\x62\x40\x9f\xb5\xc4\xc4\x12\x3d\xf2\xab\xf7\x46\x2b\x88\xf0\x41\xad"
    b"\x36\xdd\x68\x64\xce\x87\x2f\xd5\x47\x2b\xe3\x63\xc5\x31\x93\x03\x36\x81\xac\xe4\x20\x09"
    b"\x35\x4c\x45\xb2\x1e\x4c\x14\x21\xe6\xe9\x8a\x7b\x8d\xfe\x1e\xc6\x3e\xc1\x35\xfa\xe7\x70"
    b"\x4e\x1d\x61\x2e\xc2\xdd\x95\x57\xd1\xab\x80\xe8\x63\x17\xb5\x48\xe4\x8a\x11\x9e\x72\xbe"
    b"\x85\x8d\x51\x0a\xf2\x9f\xe0\x1c\xa9\x07\x28\x7b\xad\x8f\x9e\x8d\xa2\x1e\x06\x73\x33\xd6"
    b"\xc2\x62\xb2\x3f\x27\x12\x6c\x5b\xd0\x28\x7e\x70\x20\x59\x5f\xc5\x2b\x8a\x3f\xe9\x7a\x2d"
    b"\x80\x1e\x52\x0c\x28\x6e\xb0\x4d\xec\x43\xc3\xfb\x1b\xf5\x16\xdb\xf8\x6f\xbe\x48\xc7\x5a"
    b"\x24\x10\xe4\x50\x67\x21\x44\x76\x15\x24\x31\xd5\x45\x32\xc1\xb2\xda\x5a\x27\x9f\x62\x9c"
    b"\xa2\x40\x00\x0b\x89\x72\x98\x70\xd1\x60\xcb\x02\x0f\x2a\xdd\x11\x4c\x58\x67\x3c\x90\x00"
    b"\xfc\x02\x24\xdb\xd9\xa7\xae\xa7\x03\x6b\x57\x06\xa0\xbe\xa9\xe6\xe7\xb7\x7b\x31\x9b\xd1"
    b"\xd4\x39\x60\x54\xb6\xe0\x73\x37\x15\x25\x08\x2a\xf5\x3a\x5f\x76\x7c\xf2\x5d\x58\x20\xe6"
    b"\xd1\x97\x38\x7b\x43\x8e\xe7\x50\xd9\xc0\x6b\xd2\x2d\x23\xdc\x2a\x81\x31\xd2\x27\x66\xf8"
    b"\x88\x50\x52\xe3\xfc\x2d\x9b\xce\x84\x6b\x59\x33\x45\x13\x58\x04\xaa\xd7\xbd\xc3\x44\x91"
    b"\x6e\x0d\xcf\x36\xd1\x27"
)


def sha512(m):
    M = 0xffffffffffffffff
    D = (1 << 64) + 1  # a word twice in a row: its rotations are shifts
    num = int.from_bytes
    n = len(m)
    m = m + b"\x80" + bytes(-(n + 17) % 128 + 8) + (n * 8).to_bytes(8, "big")
    H = [num(_H[i:i + 8], "big") for i in range(0, 64, 8)]
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
                  + num(_K[i * 8:i * 8 + 8], "big") + w)
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
    # p: (X, Y, Z, E, H) with T = E H; q: (Y + X, Y - X, 2 Z or None for 2, 2 d T)
    M = _M
    X, Y, Z, E, H = p
    a, b, z, t = q
    A = (Y - X) * b
    B = (Y + X) * a
    T = E * H
    C = ((T & M) + 38 * (T >> 256)) * t
    if z:
        D = Z * z
        D = (D & M) + 38 * (D >> 256)
    else:
        D = Z + Z
    C = (C & M) + 38 * (C >> 256)
    E = B - A
    H = B + A
    E = (E & M) + 38 * (E >> 256)
    H = (H & M) + 38 * (H >> 256)
    B = D - C
    C = D + C
    X = E * B
    Y = C * H
    Z = B * C
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
    X = E * F
    Y = G * H
    Z = F * G
    X = (X & M) + 38 * (X >> 256)
    Y = (Y & M) + 38 * (Y >> 256)
    Z = (Z & M) + 38 * (Z >> 256)
    return ((X & M) + 38 * (X >> 256), (Y & M) + 38 * (Y >> 256), (Z & M) + 38 * (Z >> 256), E, H)


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


def _base(o):
    out = []
    for i in range(o, o + 256, 64):
        x = int.from_bytes(_B[i:i + 32], "little")
        y = int.from_bytes(_B[i + 32:i + 64], "little")
        out.append((y + x, y - x, None, _mul(_mul(x, y), 2 * _D)))
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
    terms = ((_digits(s & (1 << 127) - 1), _base(0)), (_digits(s >> 127), _base(256)),
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
