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
now = None  # the slot that the guard has started


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
        self.r = {"n": 0, "active": None, "pending": False, "tries": 0, "counter": 0,
                  "action": None, "slots": [None, None]}
        self.read()
        if not self.r["n"]:
            from .write import recover

            recover(self)

    def read(self):
        for i in 0, 1:
            try:
                b = get("boot%d" % i)
                n = json.loads(b[8:])
                if int(b[:8], 16) == crc32(b[8:]) and n["n"] > self.r["n"]:
                    self.r = n
                    self.at = i
            except (OSError,) + BAD:
                pass

    def status(self):
        return self.r

    def save(self, w):
        # The new state replaces the older record; only then it counts. Somebody else may have saved
        # since this object was made: an app confirms itself while the hub is asked.
        self.read()
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
        global now
        i = self.r["active"] or 0
        why = torn = None
        for i in i, 1 - i:
            e = self.usable(i)
            if not e:
                continue
            d = b""
            try:
                for d in self.disk.parts(i, 0, e["size"], e["size"]):
                    feed()
                if hexes(sha256(d)) == e["sha256"]:
                    now = i
                    break
                why = torn = "its image is damaged"
            except (OSError, MemoryError) as x:
                why = why or repr(x)
        else:
            d = None
        if why:
            print("pytheas:", why)
        try:
            # A slot that cannot be read may be readable at the next start, if it is all there is.
            if self.running() and (i != self.r["active"] if d else torn):
                self.end(0, why)
            self.keep()
        except OSError:
            # What cannot be noted is found again at the next start.
            pass
        return d

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
            w["keys"] = e.get("keys")
        t = "%s %s: %s" % (e["name"], e["version"], why)
        if r.get("action"):
            w["report"] = [r["action"], good, t]
        self.save(w)
        # For whoever listens on the line: a gateway, a person.
        print("pytheas:", t)

    def confirm(self):
        # What was written meanwhile has to be started first.
        if self.r["pending"] and now == self.r["active"]:
            self.end(1, "confirmed")
            self.keep()
            return True

    def keep(self):
        # The keys that a confirmed release has brought become those of the board, once.
        k = self.r.get("keys")
        if k:
            store("keys", unhexlify("".join(k)))
            self.save({"keys": None})

    def keys(self):
        try:
            return get("keys")
        except OSError:
            return b""

    def writer(self, total, digest=None):
        from .write import Writer

        return Writer(self, total, digest)
