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
    c = 128
    while c > 127:
        p += 1
        c = b[p]
        n = n << 7 | c & 127
    p += 1
    return k, p, p + n


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
    # The manifest and the size of the image that begins with b, if it is signed for this board; one
    # of BAD when b is none, or does not hold the whole front.
    k, p, e = record(b, 7)
    text = bytes(b[p:e])
    m = json.loads(text)
    end = m["front"]
    size = end + m["body"]["size"]
    if (b[0], b[1], k, m["format"], record(b, 2)) != (0xd2, 0xcd, 0x70, 1, (0x31, 7, size)):
        raise ValueError
    if len(unhexlify("".join(m.get("keys", ())))) % 32:
        raise ValueError
    sigs = []
    # Nothing but signatures and padding: the rest of the front is not signed.
    while e < end:
        k, p, e = record(b, e)
        if k == 0x73:
            sigs.append(bytes(b[p:e]))
        elif k != 1:
            raise ValueError
    if e != end or end > len(b):
        raise ValueError

    q = (m.get("requires") or {}).get
    here = s.config.get
    a = m["platform"].split("-")[1]
    mine = MPY >> 10 & 15
    mpy = m.get("mpy")
    boards = q("boards")
    model = here("model")
    firmware = q("firmware")
    loaded = here("firmware")
    n = m["counter"]
    old = s.r["counter"]
    least = q("micropython", "")
    oldest = []
    for p in least.split("."):
        if not p.isdigit():
            break
        oldest.append(int(p))
    v = sys.implementation.version[:3]
    for good, what, its, here in (
        # A Cortex-M runs what was built for the smaller ones.
        (a == "any" or a in ARCH[4 if 4 <= mine <= 8 else mine:mine + 1], "platform", a, ARCH[mine]),
        (mpy in (None, MPY & 255), ".mpy", mpy, MPY & 255),
        (not boards or model in boards, "model", boards, model),
        (firmware in (None, loaded), "firmware", firmware, loaded),
        (tuple(oldest) <= v, "micropython", least, v),
        (n >= old or n >= 0 and m.get("allow_downgrade"), "counter", n, old),
    ):
        if not good:
            raise Refused("its %s is %s, here is %s" % (what, its, here))
    signed(s, text, sigs)
    return m, size


def signed(s, text, sigs):
    k = s.keys()
    why = "it is signed by no key of this board"
    for sig in sigs:
        for i in range(0, len(k), 32):
            key = k[i:i + 32]
            if sha256(key).digest()[:8] == sig[:8]:
                import pytheas.ed25519

                feed()
                good = pytheas.ed25519.verify(key, sha256(b"pytheas-board-1\n" + text).digest(), sig[8:])
                feed()
                del sys.modules["pytheas.ed25519"], pytheas.ed25519
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
        except (Refused, OSError, NameError) + BAD:
            # NameError: there is none to read.
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
        self.room = 512
        self.buf = bytearray()
        self.done = 0
        if s.held():
            raise Refused("what runs is not confirmed yet")
        self.i = i = 0 if s.r["active"] is None else 1 - s.r["active"]
        if digest and s.r.get("write") == [i, total, digest]:
            try:
                b = get("front")
                self.m, _ = front(s, b)
                at = s.disk.done(i, total)
                if at <= len(b):
                    at = 0
                s.disk.prepare(i, total, at)
                self.start(b, at or len(b))
            except (OSError, Refused) + BAD:
                pass

    def start(self, head, done):
        # The front is known; what follows it is written by the step.
        self.head = head
        self.done = done
        self.buf = bytearray()
        self.room = STEP - done % STEP

    def at(self):
        # How many bytes it has taken.
        return self.done + len(self.buf)

    def write(self, data):
        data = memoryview(data)
        if self.at() + len(data) > self.total:
            raise Refused("it is longer than announced")
        while data:
            n = self.room - len(self.buf)
            self.buf += data[:n]
            data = data[n:]
            if len(self.buf) == self.room:
                self.flush()

    def flush(self):
        # Enough for a write, or another part of the front: once it is whole, it decides whether the
        # slot is erased.
        s = self.s
        i = self.i
        b = self.buf
        try:
            if self.head:
                s.disk.write(i, self.done, b)
                feed()
                return self.start(self.head, self.at())
            try:
                self.m, size = front(s, b)
            except BAD:
                if self.room + 512 <= min(8192, self.total):
                    self.room += 512
                    return
                raise Refused("no board image")
            if size != self.total:
                raise Refused("it has %d bytes, not %d" % (self.total, size))
            s.save({"slots": s.slot(i, None), "write": None})
            s.disk.prepare(i, size, 0)
            put("front", b)
            if self.digest:
                s.save({"write": [i, size, self.digest]})
            self.start(bytes(b), len(b))
        except OSError as e:
            self.full(e)

    def full(self, e):
        if e.errno != 28:
            raise e
        self.drop("flash full")

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
        b = self.head
        if not b or self.at() != self.total:
            raise Refused("it is cut off after %d of %d bytes" % (self.at(), self.total))
        try:
            self.flush()
            e = entry(s, i, self.m, b, self.total)
            if self.digest not in (None, e["sha256"]):
                raise Refused("its hash is not as announced")
            s.disk.write(i, 0, b)
            for d in s.disk.parts(i, 0, len(b), len(b)):
                if d != b:
                    raise Refused("the flash is worn out")
        except OSError as x:
            self.full(x)
        except Refused as x:
            self.drop(str(x))
        s.save({"active": i, "pending": True, "tries": 0, "write": None, "why": None,
                "action": action, "slots": s.slot(i, e)})
        remove("front")
        # The crashes told from now on are the new release's.
        remove("last.json")
