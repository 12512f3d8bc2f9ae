# Two slots for the app's image and the boot record that says which one runs. The record is kept
# twice, with a number and a CRC32, and its older copy is replaced: a cut loses at most the newest
# change. What fills the other slot is in write.py.
#
# Files in ROOT: config.json, keys (32 bytes each), boot0/boot1 (8 hex digits of CRC32, then JSON),
# front (of the image being written) and, with the file backend, a.romfs and b.romfs.
import json
import os
from binascii import crc32, hexlify, unhexlify
from hashlib import sha256

ROOT = hasattr(os, "getenv") and os.getenv("PYTHEAS_ROOT") or "/pytheas"
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


class Slots:
    def __init__(self):
        self.config = c = load("config.json")
        if c.get("backend") == "rom":
            from .rom import Rom

            self.disk = Rom(c.get("rom") or [0, 1])
        else:
            from .file import File

            self.disk = File()
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
            from .write import recover

            recover(self)

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

    def usable(self, i):
        e = None if i is None else self.r["slots"][i]
        return None if not e or e.get("bad") else e

    def running(self):
        return self.usable(self.r["active"])

    def held(self):
        # Whether a release has to prove itself, with another one to go back to.
        return self.r["pending"] and self.usable(1 - self.r["active"])

    def choose(self):
        # The image to run, verified, with its start counted; None when there is none.
        r = self.r
        if r["pending"]:
            n = r["tries"]
            try:
                if n >= self.config.get("attempts", 3) and self.held():
                    self.end(0, "not confirmed in %d starts" % n)
                else:
                    self.save({"tries": n + 1})
            except OSError:
                # A start that cannot be counted is none: what ran before runs.
                if self.held():
                    r["active"] = 1 - r["active"]
                    r["pending"] = False
        i = self.r["active"] or 0
        torn = False
        for i in i, 1 - i:
            e = self.usable(i)
            if e:
                try:
                    for d in self.disk.parts(i, 0, e["size"], e["size"]):
                        feed()
                        if hexes(sha256(d)) == e["sha256"]:
                            if i != self.r["active"]:
                                self.end(0, "its image is damaged")
                            elif not self.r["pending"]:
                                self.keep(e)
                            return d
                        torn = True
                except (OSError, MemoryError) as x:
                    print("pytheas:", x)
        if torn and self.running():
            self.end(0, "its image is damaged")

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
        t = "%s %s: %s" % (e["name"], e["version"], why)
        if r.get("action"):
            w["report"] = [r["action"], good, t]
        self.save(w)
        # For whoever listens on the line: a gateway, a person.
        print("pytheas:", t)

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

    def writer(self, total, digest=None):
        from .write import Writer

        return Writer(self, total, digest)
