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

ROOT = (getattr(os, "getenv", lambda _: None)("PYTHEAS_ROOT") or "/pytheas") + "/"
STEP = 4096  # bytes per write
ARCH = (None, "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp",
        "xtensa", "xtensawin", "rv32imc", "rv64imc")
dog = None  # the guard's watchdog


class Refused(Exception):
    pass


def feed():
    if dog:
        dog.feed()


def load(name):
    # A JSON file of ours; {} when it is not there or not whole.
    try:
        with open(ROOT + name) as f:
            v = json.load(f)
        return v if isinstance(v, dict) else {}
    except (OSError, ValueError):
        return {}


def store(name, data):
    # Replaces a small file: a cut leaves the old or the new content.
    with open(ROOT + name + ".new", "wb") as f:
        f.write(data)
    os.rename(ROOT + name + ".new", ROOT + name)
    if hasattr(os, "sync"):
        os.sync()


def remove(name):
    try:
        os.remove(ROOT + name)
    except OSError:
        pass


class File:
    # Slots as image files, read into RAM to run.
    def path(self, i):
        return ROOT + "ab"[i] + ".romfs"

    def data(self, i, size):
        try:
            with open(self.path(i), "rb") as f:
                return f.read(size)
        except OSError:
            return b""

    def parts(self, i, at, end):
        with open(self.path(i), "rb") as f:
            f.seek(at)
            while at < end:
                b = f.read(min(STEP, end - at))
                if not b:
                    return
                at += len(b)
                yield b

    def done(self, i, total):
        try:
            return os.stat(self.path(i))[6] // STEP * STEP
        except OSError:
            return 0

    def prepare(self, i, total, at):
        if not at:
            open(self.path(i), "wb").close()
            v = os.statvfs(ROOT)
            if v[0] * v[4] < total + 8192:
                raise OSError(28)

    def write(self, i, at, b):
        with open(self.path(i), "r+b") as f:
            f.seek(at)
            f.write(b)


class Rom:
    # Slots as ROMFS partitions: two, or one split at half.
    def __init__(self, ids):
        import vfs

        self.io = vfs.rom_ioctl
        self.ids = ids
        self.devs = [self.io(2, i) for i in ids]
        self.views = [memoryview(d) for d in self.devs]
        d = self.devs[0]
        self.bs = d.ioctl(5, 0) if hasattr(d, "ioctl") else self.io(6, ids[0])
        n = len(self.views[0])
        if len(ids) == 1:
            if self.bs <= 0:
                raise Refused("this firmware erases whole partitions: two are needed")
            n = n // 2 // self.bs * self.bs
        self.size = n

    def where(self, i):
        return (i, 0) if len(self.ids) > 1 else (0, i * self.size)

    def data(self, i, size):
        p, o = self.where(i)
        return self.views[p][o:o + min(size, self.size)]

    def parts(self, i, at, end):
        v = self.data(i, end)
        while at < end:
            yield v[at:min(at + STEP, end)]
            at += STEP

    def done(self, i, total):
        # What was erased before and is no longer blank was written; the last block may be torn.
        if self.bs <= 0:
            return 0
        v = self.data(i, total)
        blank = b"\xff" * 512
        at = total // 512 * 512
        while at and v[at - 512:at] == blank:
            at -= 512
        return max(at - 1, 0) // self.bs * self.bs

    def prepare(self, i, total, at):
        if total > self.size:
            raise OSError(28)
        p, o = self.where(i)
        if self.bs <= 0:
            self.ok(self.io(3, self.ids[p], total))
            return
        end = at + self.bs if at else total
        while at < end:
            if hasattr(self.devs[p], "ioctl"):
                self.devs[p].ioctl(6, (o + at) // self.bs)
            else:
                self.ok(self.io(3, self.ids[p], o + at, self.bs))
            at += self.bs
            feed()

    def ok(self, r):
        if r is not None and r < 0:
            raise OSError(-r)

    def write(self, i, at, b):
        p, o = self.where(i)
        b = bytes(b) + b"\xff" * (-len(b) % 16)
        if hasattr(self.devs[p], "ioctl"):
            while b:
                n = self.bs - (o + at) % self.bs
                self.devs[p].writeblocks((o + at) // self.bs, b[:n], (o + at) % self.bs)
                b = b[n:]
                at += n
        else:
            self.ok(self.io(4, self.ids[p], o + at, b))


def record(b, p):
    # Kind, start and end of the ROMFS record at p.
    k = b[p]
    n = 0
    while True:
        p += 1
        n = n << 7 | b[p] & 127
        if b[p] < 128:
            return k, p + 1, p + 1 + n


def manifest(b):
    # The manifest's text in the beginning of an image, which may be too short for it.
    if b[:3] != b"\xd2\xcd\x31" or b[7] != 0x70:
        raise Refused("no board image")
    _, p, e = record(b, 7)
    if e - p > 4096:
        raise Refused("no board image: its manifest is too long")
    return p, e


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
        self.read()

    # -- the boot record ---------------------------------------------------------------------
    def read(self):
        self.at = 1
        r = None
        for i in (0, 1):
            try:
                with open(ROOT + "boot%d" % i, "rb") as f:
                    b = f.read()
                if int(b[:8], 16) == crc32(b[8:]):
                    n = json.loads(b[8:])
                    if not r or n["n"] > r["n"]:
                        r = n
                        self.at = i
            except (OSError, ValueError, KeyError, TypeError):
                pass
        self.lost = not r
        self.r = r or {"n": 0, "run": None, "pending": False, "tries": 0, "counter": 0,
                       "slots": [None, None]}

    def save(self, **what):
        # The new state replaces the older record; only then it counts.
        n = dict(self.r)
        n.update(what)
        n["n"] += 1
        b = json.dumps(n).encode()
        i = 1 - self.at
        with open(ROOT + "boot%d" % i, "wb") as f:
            f.write(b"%08x" % crc32(b))
            f.write(b)
        if hasattr(os, "sync"):
            os.sync()
        self.at = i
        self.r = n

    def slot(self, i, v):
        s = list(self.r["slots"])
        s[i] = v
        return s

    def running(self):
        r = self.r
        return r["slots"][r["run"]] if r["run"] is not None else None

    def status(self):
        r = self.r
        return {"active": r["run"], "pending": r["pending"], "tries": r["tries"], "counter":
                r["counter"], "why": r.get("why"), "slots": r["slots"], "writing": r.get("write")}

    # -- starting ----------------------------------------------------------------------------
    def choose(self):
        # The image to run, verified, with its start counted; None when there is none.
        if self.lost:
            self.recover()
        r = self.r
        if r["pending"]:
            try:
                if r["tries"] >= self.config.get("attempts", 3):
                    self.revert("not confirmed after %d starts" % r["tries"])
                else:
                    self.save(tries=r["tries"] + 1)
            except OSError as e:
                # A start that cannot be counted is none: what ran before runs.
                print("pytheas: cannot count a start:", e)
                r = self.r = dict(r)
                r["run"] = 1 - r["run"]
                r["pending"] = False
        for i in (self.r["run"], 1 - (self.r["run"] or 0)):
            e = i is not None and self.r["slots"][i]
            if not e or e.get("bad"):
                continue
            try:
                d = self.disk.data(i, e["size"])
                good = hexlify(sha256(d).digest()).decode() == e["sha256"]
            except MemoryError:
                good = False
            feed()
            if good:
                if i != self.r["run"]:
                    self.revert("its image is damaged", i)
                return d
            print("pytheas: slot", i, "is damaged")
        return None

    def revert(self, why, to=None):
        r = self.r
        i = r["run"]
        if to is None:
            to = 1 - i
        e = r["slots"][i]
        if e:
            e = dict(e)
            e["bad"] = 1
        w = {"run": to, "pending": False, "tries": 0, "why": why, "slots": self.slot(i, e)}
        if r.get("action"):
            w["report"] = [r["action"], 0, "%s %s: %s" % (e["name"], e["version"], why)]
            w["action"] = None
        self.save(**w)

    def confirm(self):
        r = self.r
        if not r["pending"]:
            return False
        e = r["slots"][r["run"]]
        w = {"pending": False, "tries": 0, "why": None,
             "counter": max(r["counter"], e["counter"])}
        if e.get("keys"):
            w["keys"] = e["keys"]
        if r.get("action"):
            w["report"] = [r["action"], 1, "%s %s runs and is confirmed" % (e["name"], e["version"])]
            w["action"] = None
        self.save(**w)
        self.keep_keys()
        return True

    def keep_keys(self):
        # The file of keys follows the record, for the day both records are lost.
        k = unhexlify("".join(self.r.get("keys") or ()))
        if k:
            try:
                with open(ROOT + "keys", "rb") as f:
                    same = f.read() == k
            except OSError:
                same = False
            if not same:
                store("keys", k)

    def recover(self):
        # Both records are lost: the signatures say what is whole.
        best = None
        slots = [None, None]
        for i in (0, 1):
            try:
                m, size = self.front(self.disk.data(i, 8192))
                h = sha256()
                g = sha256()
                for b in self.disk.parts(i, 0, m["front"]):
                    h.update(b)
                for b in self.disk.parts(i, m["front"], size):
                    h.update(b)
                    g.update(b)
                if hexlify(g.digest()).decode() != m["body"]["sha256"]:
                    continue
                slots[i] = self.entry(m, size, hexlify(h.digest()).decode())
                if best is None or m["counter"] > slots[best]["counter"]:
                    best = i
            except (Refused, OSError, MemoryError):
                pass
        if best is not None:
            self.save(run=best, slots=slots, counter=slots[best]["counter"],
                      why="both boot records were lost")
        self.lost = False

    # -- what is written ---------------------------------------------------------------------
    def entry(self, m, size, h):
        e = {"size": size, "sha256": h}
        for k in ("name", "version", "counter", "entry", "keys", "config"):
            if m.get(k) is not None:
                e[k] = m[k]
        return e

    def front(self, b):
        # The manifest and the size of the image that begins with b, if it is signed for this board.
        try:
            p, e = manifest(b)
            text = bytes(b[p:e])
            m = json.loads(text)
            end = m["front"]
            size = end + m["body"]["size"]
            if m["format"] != 1 or end > len(b) or end % 512 or not isinstance(m["counter"], int):
                raise ValueError
            n = 0
            for c in b[3:7]:
                n = n << 7 | c & 127
            if n + 7 != size or b[3] & b[4] & b[5] < 128 or b[6] > 127:
                raise ValueError
            sigs = []
            # Nothing but signatures and padding: the rest of the front is not signed.
            while e < end:
                k, p, e = record(b, e)
                if k == 0x73 and e - p == 72:
                    sigs.append(bytes(b[p:e]))
                elif k != 1:
                    raise ValueError
            if e != end:
                raise ValueError
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise Refused("no board image: its front is damaged")
        self.fits(m)
        self.signed(text, sigs)
        return m, size

    def fits(self, m):
        c = self.config
        q = m.get("requires") or {}
        mpy = getattr(sys.implementation, "_mpy", 0)
        a = m["platform"].split("-", 1)[1]
        mine = mpy >> 10 & 15
        # A Cortex-M runs what was built for the smaller ones.
        if a != "any" and a not in (ARCH[4:mine + 1] if 4 <= mine <= 8 else ARCH[mine:mine + 1]):
            raise Refused("it is for %s, this board is %s" % (a, ARCH[mine]))
        if m.get("mpy") and m["mpy"] != mpy & 255:
            raise Refused("its .mpy version is %d, this firmware reads %d" % (m["mpy"], mpy & 255))
        if q.get("boards") and c.get("model") not in q["boards"]:
            raise Refused("it is for %s, this board is %s" % (q["boards"], c.get("model")))
        if q.get("firmware") and q["firmware"] != c.get("firmware"):
            raise Refused("it needs firmware %s, here is %s" % (q["firmware"], c.get("firmware")))
        v = sys.implementation.version[:3]
        if q.get("micropython") and version(q["micropython"]) > v:
            raise Refused("it needs MicroPython %s, here is %s" % (q["micropython"], v))
        if m["counter"] < self.r["counter"] and not m.get("allow_downgrade"):
            raise Refused("its counter %d is lower than %d" % (m["counter"], self.r["counter"]))

    def signed(self, text, sigs):
        keys = self.r.get("keys")
        if keys:
            k = unhexlify("".join(keys))
        else:
            try:
                with open(ROOT + "keys", "rb") as f:
                    k = f.read()
            except OSError:
                k = b""
        known = False
        message = sha256(b"pytheas-board-1\n" + text).digest()
        for s in sigs:
            for i in range(0, len(k), 32):
                key = k[i:i + 32]
                if sha256(key).digest()[:8] == s[:8]:
                    known = True
                    from . import ed25519

                    feed()
                    good = ed25519.verify(key, message, s[8:])
                    feed()
                    del sys.modules[ed25519.__name__]
                    if good:
                        return
        raise Refused("its signature is wrong" if known else
                      "it is signed by no key of this board" if sigs else "it is not signed")

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
        r = s.r
        if r["pending"]:
            raise Refused("the running release is not confirmed yet")
        self.i = 0 if r["run"] is None else 1 - r["run"]
        if digest and r.get("write") == [self.i, total, digest]:
            try:
                with open(ROOT + "front", "rb") as f:
                    b = f.read()
                self.m, _ = s.front(b)
            except (OSError, Refused):
                return
            at = s.disk.done(self.i, total)
            if at <= len(b):
                at = 0
            s.disk.prepare(self.i, total, at)
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
                if self.head:
                    self.flush()
                else:
                    self.begin()

    def begin(self):
        # Another part of the front: once it is whole, it decides whether the slot is erased.
        b = self.buf
        try:
            _, e = manifest(b)
            if e <= len(b):
                p, e = manifest(b)
                e = json.loads(bytes(b[p:e]))["front"]
        except (ValueError, KeyError, IndexError, TypeError):
            e = 0
        if not 0 < e <= 8192:
            raise Refused("no board image: its front is damaged")
        if e > len(b):
            self.want = (e + 511) // 512 * 512
            return
        s = self.s
        m, size = s.front(b)
        if size != self.total:
            raise Refused("it has %d bytes, not %d" % (self.total, size))
        try:
            s.save(slots=s.slot(self.i, None), write=None)
            s.disk.prepare(self.i, size, 0)
            store("front", b)
            if self.digest:
                s.save(write=[self.i, size, self.digest])
        except OSError as e:
            self.full(e)
        self.m = m
        self.head = bytes(b)
        self.done = len(b)
        self.buf = bytearray()

    def flush(self):
        try:
            self.s.disk.write(self.i, self.done, self.buf)
        except OSError as e:
            self.full(e)
        feed()
        self.done += len(self.buf)
        self.buf = bytearray()

    def full(self, e):
        if e.errno != 28:
            raise e
        self.drop("flash full")

    def drop(self, why):
        # What was written is of no use: the room is given back.
        if isinstance(self.s.disk, File):
            remove("ab"[self.i] + ".romfs")
        remove("front")
        self.s.save(write=None)
        raise Refused(why)

    def finish(self, action=None):
        # Reads back what was written, writes the front and makes the image the next to be started.
        if not self.head or self.at() != self.total:
            raise Refused("it is cut off after %d of %d bytes" % (self.at(), self.total))
        if self.buf:
            self.flush()
        s = self.s
        i = self.i
        head = self.head
        h = sha256(head)
        g = sha256()
        for b in s.disk.parts(i, len(head), self.total):
            h.update(b)
            g.update(b)
            feed()
        h = hexlify(h.digest()).decode()
        if hexlify(g.digest()).decode() != self.m["body"]["sha256"]:
            self.drop("its content is not what was signed")
        if self.digest and h != self.digest:
            self.drop("its hash is not as announced")
        s.disk.write(i, 0, head)
        if bytes(s.disk.data(i, len(head))) != head:
            raise OSError(5)
        s.save(run=i, pending=True, tries=0, write=None, why=None, action=action,
               slots=s.slot(i, s.entry(self.m, self.total, h)))
        remove("front")
