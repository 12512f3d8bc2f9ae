# Two slots for the app's image, the boot record that says which one runs, and the writer that fills
# the other. Nothing is erased before its replacement is known to be signed and meant for this board,
# and an image's front (with the ROMFS magic) is written last: an image with a front is whole.
#
# Files in ROOT: config.json, keys (32 bytes each), boot0/boot1 (8 hex digits of CRC32, then JSON),
# front (of the image being written) and, with the file backend, a.romfs and b.romfs.
import json
import os
import sys
from binascii import crc32, hexlify, unhexlify
from hashlib import sha256

ROOT = (getattr(os, "getenv", id)("PYTHEAS_ROOT") if hasattr(os, "getenv") else 0) or "/pytheas"
STEP = 4096  # bytes per write
MPY = getattr(sys.implementation, "_mpy", 0)
ARCH = ("? x86 x64 armv6 armv6m armv7m armv7em armv7emsp armv7emdp xtensa xtensawin rv32imc "
        "rv64imc").split()
BAD = (ValueError, KeyError, IndexError, TypeError, AttributeError)
dog = None  # the guard's watchdog


class Refused(Exception):
    pass


def feed():
    if dog:
        dog.feed()


def get(name, mode="rb"):
    with open(ROOT + "/" + name, mode) as f:
        return f.read()


def load(name):
    # A JSON object of ours; {} when it is not there or not whole.
    try:
        return dict(json.loads(get(name)))
    except (OSError,) + BAD:
        return {}


def put(name, data, mode="wb"):
    with open(ROOT + "/" + name, mode) as f:
        f.write(data)
    if hasattr(os, "sync"):
        os.sync()


def store(name, data):
    # Replaces a small file: a cut leaves the old or the new content.
    put(name + ".new", data)
    os.rename(ROOT + "/" + name + ".new", ROOT + "/" + name)


def remove(name):
    try:
        os.remove(ROOT + "/" + name)
    except OSError:
        pass


def hexes(h):
    return hexlify(h.digest()).decode()


class File:
    # Slots as image files, read into RAM to run.
    def name(self, i):
        return "ab"[i] + ".romfs"

    def open(self, i, mode="rb"):
        return open(ROOT + "/" + self.name(i), mode)

    def parts(self, i, at, end, step=STEP):
        with self.open(i) as f:
            f.seek(at)
            while at < end:
                b = f.read(min(step, end - at))
                if not b:
                    return
                at += len(b)
                yield b

    def done(self, i, total):
        return os.stat(ROOT + "/" + self.name(i))[6] // STEP * STEP

    def prepare(self, i, total, at):
        if not at:
            self.open(i, "wb").close()
            v = os.statvfs(ROOT)
            if v[0] * v[4] < total + 8192:
                raise OSError(28)

    def write(self, i, at, b):
        with self.open(i, "r+b") as f:
            f.seek(at)
            f.write(b)

    def drop(self, i):
        remove(self.name(i))


class Rom:
    # Slots as ROMFS partitions: two, or one split at half. A partition is a block device (ESP32) or
    # memory that rom_ioctl erases, older firmware only as a whole.
    def __init__(self, ids):
        import vfs

        self.io = vfs.rom_ioctl
        self.devs = [self.io(2, i) for i in ids]
        self.ids = ids
        d = self.devs[0]
        self.bs = d.ioctl(5, 0) if hasattr(d, "ioctl") else self.io(6, ids[0])
        n = len(memoryview(d))
        if len(ids) < 2:
            n = n // 2 // self.bs * self.bs if self.bs > 0 else 0
        self.size = n

    def where(self, i):
        p = i if len(self.ids) > 1 else 0
        return self.devs[p], self.ids[p], 0 if p or not i else self.size

    def parts(self, i, at, end, step=STEP):
        d, _, o = self.where(i)
        d = memoryview(d)[o:o + min(end, self.size)]
        while at < end:
            yield d[at:at + step]
            at += step

    def done(self, i, total):
        # What was erased and is no longer blank was written; the last block may be torn.
        n = at = 0
        for b in self.parts(i, 0, total, 512):
            at += 512
            if b != b"\xff" * len(b):
                n = at - 1
        return n // self.bs * self.bs if self.bs > 0 else 0

    def prepare(self, i, total, at):
        # Erases everything, or the block that may be torn.
        if total > self.size:
            raise OSError(28)
        d, p, o = self.where(i)
        if self.bs <= 0:
            return self.ok(self.io(3, p, total))
        end = at + 1 if at else total
        while at < end:
            if hasattr(d, "ioctl"):
                d.ioctl(6, (o + at) // self.bs)
            else:
                self.ok(self.io(3, p, o + at, self.bs))
            at += self.bs
            feed()

    def ok(self, r):
        if r and r < 0:
            raise OSError(-r)

    def write(self, i, at, b):
        d, p, o = self.where(i)
        b = bytes(b) + b"\xff" * (-len(b) % 16)
        at += o
        if hasattr(d, "ioctl"):
            # Never across a block.
            for n in range(0, len(b), 512):
                d.writeblocks((at + n) // self.bs, b[n:n + 512], (at + n) % self.bs)
        else:
            self.ok(self.io(4, p, at, b))

    def drop(self, i):
        pass


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


class Slots:
    def __init__(self):
        self.config = c = load("config.json")
        self.disk = Rom(c.get("rom") or [0, 1]) if c.get("backend") == "rom" else File()
        self.at = 1
        r = None
        for i in 0, 1:
            try:
                b = get("boot%d" % i)
                if int(b[:8], 16) == crc32(b[8:]):
                    n = json.loads(b[8:])
                    if not r or n["n"] > r["n"]:
                        r = n
                        self.at = i
            except (OSError,) + BAD:
                pass
        self.r = r or {"n": 0, "active": None, "pending": False, "tries": 0, "counter": 0,
                       "slots": [None, None]}
        if not r:
            self.recover()

    def status(self):
        return self.r

    def save(self, w):
        # The new state replaces the older record; only then it counts.
        n = dict(self.r)
        n.update(w)
        n["n"] += 1
        b = json.dumps(n).encode()
        put("boot%d" % (1 - self.at), b"%08x%s" % (crc32(b), b))
        self.at = 1 - self.at
        self.r = n

    def slot(self, i, v):
        s = list(self.r["slots"])
        s[i] = v
        return s

    def running(self):
        i = self.r["active"]
        return None if i is None else self.r["slots"][i]

    def recover(self):
        # Both records are lost: the signatures say what is whole.
        for i in 0, 1:
            try:
                for b in self.disk.parts(i, 0, 8192, 8192):
                    m, size = self.front(b)
                e = self.entry(i, m, bytes(b[:m["front"]]), size)
                if m["counter"] >= self.r["counter"]:
                    self.r["active"] = i
                    self.r["counter"] = m["counter"]
                self.save({"slots": self.slot(i, e)})
            except (Refused, OSError, NameError):
                pass

    def choose(self):
        # The image to run, verified, with its start counted; None when there is none.
        if self.r["pending"]:
            n = self.r["tries"]
            try:
                if n >= self.config.get("attempts", 3):
                    self.end(0, "not confirmed in %d starts" % n)
                else:
                    self.save({"tries": n + 1})
            except OSError:
                # A start that cannot be counted is none: what ran before runs.
                self.r["active"] = 1 - self.r["active"]
                self.r["pending"] = False
        i = self.r["active"] or 0
        for i in i, 1 - i:
            e = self.r["slots"][i]
            if not e or e.get("bad"):
                continue
            try:
                for d in self.disk.parts(i, 0, e["size"], e["size"]):
                    feed()
                    if hexes(sha256(d)) == e["sha256"]:
                        if i != self.r["active"]:
                            self.end(0, "its image is damaged")
                        elif not self.r["pending"]:
                            self.keep(e)
                        return d
            except (OSError, MemoryError) as x:
                print("pytheas:", x)

    def end(self, good, why):
        # The running release is confirmed, or given up for the other one.
        r = self.r
        i = r["active"]
        e = dict(r["slots"][i])
        if not good:
            e["bad"] = 1
        w = {"active": i if good else 1 - i, "pending": False, "tries": 0, "why": why,
             "action": None, "slots": self.slot(i, e)}
        if good:
            w["counter"] = max(r["counter"], e["counter"])
        if r.get("action"):
            w["report"] = [r["action"], good, "%s %s: %s" % (e["name"], e["version"], why)]
        self.save(w)

    def confirm(self):
        if self.r["pending"]:
            self.end(1, "confirmed")
            self.keep(self.running())
            return True

    def keep(self, e):
        # The keys that a confirmed release brings are those of the board.
        k = unhexlify("".join(e.get("keys") or ""))
        if k and k != self.keys():
            store("keys", k)

    def keys(self):
        try:
            return get("keys")
        except OSError:
            return b""

    def entry(self, i, m, head, size):
        # What the record says of an image, whose body is read back.
        h = sha256(head)
        g = sha256()
        for b in self.disk.parts(i, len(head), size):
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

    def front(self, b):
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
                    or k != 0x70 or m["format"] != 1 or end > len(b) or m["counter"] < 0):
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
            self.fits(m)
        except BAD:
            raise Refused("no board image")
        self.signed(text, sigs)
        return m, size

    def fits(self, m):
        c = self.config
        q = m.get("requires") or {}
        a = m["platform"].split("-")[1]
        mine = MPY >> 10 & 15
        v = sys.implementation.version[:3]
        # A Cortex-M runs what was built for the smaller ones.
        for good, what, here in (
            (a == "any" or a in ARCH[4 if 4 <= mine <= 8 else mine:mine + 1], a, ARCH[mine]),
            (not m.get("mpy") or m["mpy"] == MPY & 255, ".mpy", MPY & 255),
            (not q.get("boards") or c.get("model") in q["boards"], q.get("boards"),
             c.get("model")),
            (q.get("firmware") in (None, c.get("firmware")), q.get("firmware"),
             c.get("firmware")),
            (version(q.get("micropython", "")) <= v, q.get("micropython"), v),
            (m["counter"] >= self.r["counter"] or m.get("allow_downgrade"), m["counter"],
             self.r["counter"]),
        ):
            if not good:
                raise Refused("it is for %s, here is %s" % (what, here))

    def signed(self, text, sigs):
        k = self.keys()
        why = "it is signed by no key of this board"
        for s in sigs:
            for i in range(0, len(k), 32):
                key = k[i:i + 32]
                if sha256(key).digest()[:8] == s[:8]:
                    from . import ed25519

                    feed()
                    good = ed25519.verify(key, sha256(b"pytheas-board-1\n" + text).digest(), s[8:])
                    feed()
                    del sys.modules[ed25519.__name__]
                    if good:
                        return
                    why = "its signature is wrong"
        raise Refused(why)

    def writer(self, total, digest=None):
        return Writer(self, total, digest)


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
        if s.r["pending"]:
            raise Refused("what runs is not confirmed yet")
        i = s.r["active"]
        self.i = 0 if i is None else 1 - i
        if digest and s.r.get("write") == [self.i, total, digest]:
            try:
                b = get("front")
                self.m, _ = s.front(b)
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
        self.m, size = s.front(b)
        if size != self.total:
            raise Refused("its size is not as announced")
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
            e = s.entry(i, self.m, self.head, self.total)
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
