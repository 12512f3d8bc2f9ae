# Fills the slot that does not run. Nothing is erased before its replacement is known to be signed and
# meant for this board, and an image's front (with the ROMFS magic) is written last: an image with a
# front is whole.
import json
import sys
from binascii import unhexlify
from hashlib import sha256

from .slots import BAD, ROOT, Refused, feed, get, hexes, put, remove

STEP = 4096  # bytes per write
MPY = getattr(sys.implementation, "_mpy", 0)
ARCH = ("? x86 x64 armv6 armv6m armv7m armv7em armv7emsp armv7emdp xtensa xtensawin rv32imc "
        "rv64imc").split()


def record(b, p):
    # Kind, start and end of the ROMFS record at p.
    k = b[p]
    n = 0
    while True:
        p += 1
        n = n << 7 | b[p] & 127
        if b[p] < 128:
            return k, p + 1, p + 1 + n


def version(t):
    v = []
    for p in t.split("."):
        if not p.isdigit():
            break
        v.append(int(p))
    return tuple(v)


def entry(s, i, m, head, size):
    # What the record says of an image, whose body is read back.
    h = sha256(head)
    g = sha256()
    for b in s.disk.parts(i, len(head), size):
        h.update(b)
        g.update(b)
        feed()
    if hexes(g) != m["body"]["sha256"]:
        raise Refused("its content is not what was signed")
    e = {"size": size, "sha256": hexes(h)}
    for k in "name", "version", "counter", "entry", "keys", "config":
        if k in m:
            e[k] = m[k]
    return e


def front(s, b):
    # The manifest and the size of the image that begins with b, if it is signed for this board.
    try:
        k, p, e = record(b, 7)
        text = bytes(b[p:e])
        m = json.loads(text)
        end = m["front"]
        size = end + m["body"]["size"]
        n = size - 7
        if (bytes(b[:7]) != b"\xd2\xcd\x31" + bytes((n >> 21 | 128, n >> 14 & 127 | 128,
                                                     n >> 7 & 127 | 128, n & 127))
                or k != 0x70 or m["format"] != 1 or end > len(b) or m["counter"] < 0
                or len(unhexlify("".join(m.get("keys", ())))) % 32):
            raise ValueError
        sigs = []
        # Nothing but signatures and padding: the rest of the front is not signed.
        while e < end:
            k, p, e = record(b, e)
            if k == 0x73:
                sigs.append(bytes(b[p:e]))
            elif k != 1:
                raise ValueError
        if e != end:
            raise ValueError
        fits(s, m)
    except BAD:
        raise Refused("no board image")
    signed(s, text, sigs)
    return m, size


def fits(s, m):
    c = s.config
    q = m.get("requires") or {}
    a = m["platform"].split("-")[1]
    mine = MPY >> 10 & 15
    v = sys.implementation.version[:3]
    # A Cortex-M runs what was built for the smaller ones.
    for good, what, its, here in (
        (a == "any" or a in ARCH[4 if 4 <= mine <= 8 else mine:mine + 1], "platform", a,
         ARCH[mine]),
        (m.get("mpy") in (None, MPY & 255), ".mpy", m.get("mpy"), MPY & 255),
        (not q.get("boards") or c.get("model") in q["boards"], "model", q.get("boards"),
         c.get("model")),
        (q.get("firmware") in (None, c.get("firmware")), "firmware", q.get("firmware"),
         c.get("firmware")),
        (version(q.get("micropython", "")) <= v, "micropython", q.get("micropython"), v),
        (m["counter"] >= s.r["counter"] or m.get("allow_downgrade"), "counter", m["counter"],
         s.r["counter"]),
    ):
        if not good:
            raise Refused("its %s is %s, here is %s" % (what, its, here))


def signed(s, text, sigs):
    k = s.keys()
    why = "it is signed by no key of this board"
    for sig in sigs:
        for i in range(0, len(k), 32):
            key = k[i:i + 32]
            if sha256(key).digest()[:8] == sig[:8]:
                import pytheas

                from . import ed25519

                feed()
                good = ed25519.verify(key, sha256(b"pytheas-board-1\n" + text).digest(), sig[8:])
                feed()
                del sys.modules[ed25519.__name__], pytheas.ed25519
                if good:
                    return
                why = "its signature is wrong"
    raise Refused(why)


def recover(s):
    # Both records are lost: the signatures say what is whole.
    r = s.r
    for i in 0, 1:
        try:
            for b in s.disk.parts(i, 0, 8192, 8192):
                m, size = front(s, b)
            r["slots"][i] = entry(s, i, m, bytes(b[:m["front"]]), size)
        except (Refused, OSError, NameError):
            pass
    for i in 0, 1:
        e = r["slots"][i]
        if e and e["counter"] >= r["counter"]:
            r["active"] = i
            r["counter"] = e["counter"]
    if r["active"] is not None:
        # It may be one that was taken back: it proves itself again.
        r["pending"] = True
        try:
            s.save({})
        except OSError:
            pass


class Writer:
    # Takes an image piece by piece. `done`: how many of its bytes are there already; feed it the rest.
    def __init__(self, s, total, digest):
        self.s = s
        self.total = total
        self.digest = digest
        self.head = None
        self.want = 512
        self.buf = bytearray()
        self.done = 0
        if s.held():
            raise Refused("what runs is not confirmed yet")
        i = s.r["active"]
        self.i = 0 if i is None else 1 - i
        if digest and s.r.get("write") == [self.i, total, digest]:
            try:
                b = get("front")
                self.m, _ = front(s, b)
                at = s.disk.done(self.i, total)
                if at <= len(b):
                    at = 0
                s.disk.prepare(self.i, total, at)
            except (OSError, Refused):
                return
            self.head = b
            self.done = at or len(b)

    def at(self):
        # How many bytes it has taken.
        return self.done + len(self.buf)

    def write(self, data):
        data = memoryview(data)
        if self.at() + len(data) > self.total:
            raise Refused("it is longer than announced")
        while data:
            room = STEP - self.done % STEP if self.head else self.want
            n = room - len(self.buf)
            self.buf += data[:n]
            data = data[n:]
            if len(self.buf) == room:
                try:
                    if self.head:
                        self.flush()
                    else:
                        self.begin()
                except OSError as e:
                    if e.errno != 28:
                        raise
                    self.drop("flash full")

    def begin(self):
        # Another part of the front: once it is whole, it decides whether the slot is erased.
        b = self.buf
        try:
            _, p, e = record(b, 7)
            if e <= len(b):
                e = json.loads(bytes(b[p:e]))["front"]
            if len(b) < e <= 8192 and b[0] == 0xd2:
                self.want = (e + 511) // 512 * 512
                return
        except BAD:
            pass
        s = self.s
        self.m, size = front(s, b)
        if size != self.total:
            raise Refused("it has %d bytes, not %d" % (self.total, size))
        s.save({"slots": s.slot(self.i, None), "write": None})
        s.disk.prepare(self.i, size, 0)
        put("front", b)
        if self.digest:
            s.save({"write": [self.i, size, self.digest]})
        self.head = bytes(b)
        self.done = len(b)
        self.buf = bytearray()

    def flush(self):
        self.s.disk.write(self.i, self.done, self.buf)
        feed()
        self.done += len(self.buf)
        self.buf = bytearray()

    def drop(self, why):
        # What was written is of no use: the room is given back.
        self.s.disk.drop(self.i)
        remove("front")
        self.s.save({"write": None})
        raise Refused(why)

    def finish(self, action=None):
        # Reads back what was written, writes the front and makes the image the next to be started.
        s = self.s
        i = self.i
        if not self.head or self.at() != self.total:
            raise Refused("it is cut off after %d of %d bytes" % (self.at(), self.total))
        try:
            self.flush()
            e = entry(s, i, self.m, self.head, self.total)
            if self.digest not in (None, e["sha256"]):
                raise Refused("its hash is not as announced")
            s.disk.write(i, 0, self.head)
            for b in s.disk.parts(i, 0, len(self.head), len(self.head)):
                if b != self.head:
                    raise Refused("the flash is worn out")
        except OSError as x:
            if x.errno != 28:
                raise
            self.drop("flash full")
        except Refused as x:
            self.drop(str(x))
        s.save({"active": i, "pending": True, "tries": 0, "write": None, "why": None,
                "action": action, "slots": s.slot(i, e)})
        remove("front")
        # The crashes told from now on are the new release's.
        remove("last.json")
