# Pytheas on a board: what an app calls, the boot record, and the guard. What is needed now and then
# only is in hub.py. Few modules and short names: a board gets 12 KB, and each module repeats the
# names that it uses.
#
#   pytheas.confirm()           this release works: keep it
#   pytheas.log(text)           a line for the console and the hub (the last ones are kept)
#   pytheas.metric(name, value) a number for the hub
#   pytheas.settings            the app's settings
#   pytheas.update()            asks the hub once; may reset into a new release
#   pytheas.run_forever()       a task that does so for ever
#   pytheas.on_reset            functions to call before an update restarts the board
#
# The guard: `/main.py` is `import pytheas; pytheas.boot()`. It counts a start before it happens, runs
# the newest verified image, and takes a release back that does not confirm itself. It needs nothing
# of the app: when there is none to run, the board stays reachable by REPL and hub.
#
# Files in ROOT: config.json, keys (32 bytes each), boot0/boot1, front (of the image being written),
# crash (the last one), settings (the hub's) and, with the file backend, a.romfs, b.romfs.
while True:
    break
    # Never run: names that are mentioned here get low numbers, which take one byte instead of two.
    (_.r.get.sys.config.ROOT.timer.print.reset.held.name.json.os.save.end.OSError.gc.crc32.sha256.dog.now
     .disk.feed.load.usable.rescue.modules.settings.Refused.Exception.update.put.store.remove.ready.title
     .keep.asyncio.hub.run.n.lines.confirm.runs.pick.missed.boot.configure.start.str.poll.crash.hasattr.rom.time
     .collect.platform.linux.__path__.metrics.on_reset.log.metric.run_forever.join.deinit.machine.open
     .read.loads.data.sync.new.file.find.dumps.bad.why.keys.repr.sleep.WDT.Timer.getattr.isinstance.min)
import gc
import json
import os
import sys
from binascii import crc32
from hashlib import sha256

if __debug__:
    # For CPython, which runs tests of apps; `mpy-cross -O3` leaves it out.
    def const(value):
        return value


# The boot record, a list: the slots' images, then this (hub.py has the same; names like these
# are constants, and cost nothing). boot0 and boot1 each hold 8 hex digits of CRC32 and it as JSON;
# its number says which of them it replaces: a cut loses at most the newest change.
_N = const(2)
_ACTIVE = const(3)
_PENDING = const(4)
_TRIES = const(5)
_COUNTER = const(6)
_WHY = const(7)
_ACTION = const(8)
_REPORT = const(9)
_KEYS = const(11)

r = [None, None, 0, 1, False, 0, 0, None, None, None, None, None]
ROOT = "/pytheas/"
if sys.platform == "linux":
    from .unix import ROOT
if __path__ == "pytheas":
    # What is imported later is found, too, when the app has changed the folder.
    __path__ = "/pytheas"

settings = {}  # filled by the guard before the app starts, and from then on by the hub
metrics = {}
lines = []
on_reset = []
dog = None  # the watchdog
now = None  # the slot that was started
timer = disk = None


class Refused(Exception):
    pass


def log(*words):
    t = " ".join(map(str, words))
    print(t)
    lines.append(t[:200])
    del lines[:-20]


def metric(name, value):
    metrics[name] = value


def update():
    # Seconds until the hub wants to be asked again.
    import asyncio

    from .hub import poll

    return asyncio.run(poll())


def run_forever():
    from .hub import run

    return run()


def confirm():
    # What was written meanwhile has to be started first.
    ready()
    if r[_PENDING] and now == r[_ACTIVE]:
        end(1, "confirmed")
        remove("crash")
        if timer:
            timer.deinit()
        keep()
        return True


def feed():
    if dog:
        dog.feed()


def reset():
    import machine

    machine.reset()


def get(name):
    try:
        with open(ROOT + name, "rb") as f:
            return f.read()
    except OSError:
        return b""


def load(name):
    # A JSON object of ours; {} when it is not there or not whole.
    try:
        return dict(json.loads(get(name)))
    except (ValueError, TypeError):
        return {}


def put(name, data):
    with open(ROOT + name, "wb") as f:
        f.write(data)
    if hasattr(os, "sync"):
        os.sync()


def store(name, data):
    # Replaces a small file: a cut leaves the old or the new content.
    put("new", data)
    os.rename(ROOT + "new", ROOT + name)


def remove(name):
    try:
        os.remove(ROOT + name)
    except OSError:
        pass


config = load("config.json")


def ready():
    # The slots and the newest boot record, read once: from then on `r` is the truth.
    global disk
    if disk:
        return
    if config.get("backend") == "rom":
        from . import rom as disk
    else:
        from . import file as disk
    for i in "01":
        b = get("boot" + i)
        if b[:8] == b"%08x" % crc32(b[8:]):
            n = json.loads(b[8:])
            if n[_N] > r[_N]:
                r[:] = n
    if not r[_N]:
        from .hub import find

        find()


def save(w):
    # The new state replaces the older record; only then it counts.
    n = r[:]
    for k in w:
        n[k] = w[k]
    n[_N] += 1
    b = json.dumps(n).encode()
    put("boot%d" % (n[_N] & 1), b"%08x%s" % (crc32(b), b))
    r[:] = n


def usable(i):
    e = r[i]
    return None if not e or e.get("bad") else e


def runs():
    return usable(r[_ACTIVE])


def held():
    # Whether a release has to prove itself, with another one to go back to.
    return r[_PENDING] and usable(1 - r[_ACTIVE])


def configure():
    # The release's settings, over them the board's, over them the hub's.
    settings.clear()
    e = r[now or 0]
    for e in e and e.get("config"), config.get("settings"), load("settings").get("settings"):
        # Whatever a hub sends, the app starts.
        if isinstance(e, dict):
            settings.update(e)


def title(e):
    return "%s %s" % (e["name"], e["version"])


def end(good, why):
    # The runs release is confirmed, or given up for the other one.
    i = r[_ACTIVE]
    e = r[i]
    w = {_PENDING: False, _TRIES: 0, _WHY: why, _ACTION: None}
    if good:
        w[_COUNTER] = max(r[_COUNTER], e["counter"])
        w[_KEYS] = e.get("keys")
    else:
        # At once: also when it cannot be saved, the next image does not go where the other one runs.
        r[_ACTIVE] = 1 - i
        e["bad"] = 1
    why = title(e) + ": " + why
    if r[_ACTION]:
        w[_REPORT] = [r[_ACTION], good, why]
    save(w)
    # For whoever listens on the line: a gateway, a person.
    print("pytheas:", why)


def keep():
    # The keys that a confirmed release has brought become those of the board, once.
    if r[_KEYS]:
        store("keys", bytes.fromhex("".join(r[_KEYS])))
        save({_KEYS: None})


def pick():
    # The image to run, verified, with its start counted; None when there is none.
    global now
    n = r[_TRIES]
    if r[_PENDING]:
        try:
            if n >= config.get("attempts", 3) and held():
                end(0, "not confirmed in %d starts" % n)
            else:
                save({_TRIES: n + 1})
        except OSError:
            # A start that cannot be counted is none: what ran before runs.
            if held():
                r[_ACTIVE] ^= 1
                r[_PENDING] = False
    i = r[_ACTIVE]
    why = torn = d = None
    for i in i, 1 - i:
        e = usable(i)
        if e:
            feed()
            try:
                d = disk.read(i, e["size"])
                if sha256(d).digest().hex() == e["sha256"]:
                    now = i
                    break
                why = torn = "image damaged"
            except (OSError, MemoryError) as x:
                why = why or repr(x)
            d = None
    if why:
        print("pytheas:", why)
    try:
        # A slot that cannot be read may be readable at the next start, if it is all there is.
        if runs() and (i != r[_ACTIVE] if d else torn):
            end(0, why)
        keep()
    except OSError:
        # What cannot be noted is found again at the next start.
        pass
    return d


def missed(_):
    # The time for `confirm` is over.
    if held():
        try:
            end(0, "not confirmed in time")
        finally:
            reset()


def boot():
    import time

    try:
        ready()
        start(time)
    except Exception as e:
        # The guard itself failed, for want of memory perhaps: a start anew, and time for Ctrl-C.
        print("pytheas:", repr(e))
        time.sleep(3)
        reset()


def start(time):
    global dog, timer
    import machine
    import vfs

    t = time.ticks_ms()
    n = config.get("watchdog")
    if n and hasattr(machine, "WDT"):
        dog = machine.WDT(timeout=n * 1000)
    data = pick()
    n = 0
    if data is None:
        print("pytheas: nothing to run", r[_WHY])
        return rescue(time, n)
    e = r[now]
    why = "the app ended"
    try:
        if held():
            # Counting the starts works without a timer.
            for i in -1, 3, 0:
                try:
                    timer = machine.Timer(i)
                    timer.init(mode=machine.Timer.ONE_SHOT,
                               period=config.get("confirm", 60) * 1000, callback=missed)
                    break
                except Exception:
                    timer = None
        vfs.mount(vfs.VfsRom(data), "/app")
        sys.path[:0] = "/app", "/app/lib"
        configure()
        data = None
        gc.collect()
        m, _, f = e["entry"].partition(":")
        # Memory for what follows an app that takes all of it.
        spare = bytearray(500)
        x = __import__(m, None, None, (1,))
        if f:
            for n in f.split("."):
                x = getattr(x, n)
            x = x()
            if hasattr(x, "send"):
                import asyncio

                asyncio.run(x)
    except KeyboardInterrupt:
        # Someone at the REPL is no failed start.
        if timer:
            timer.deinit()
        if r[_TRIES]:
            save({_TRIES: r[_TRIES] - 1})
        raise
    except SystemExit:
        pass
    except BaseException as x:
        # A cancelled main task is no Exception.
        why = x
    if isinstance(why, str):
        print(why)
        n = r[_PENDING] and r[_ACTIVE] == now
        v = config.get("on_exit")
        # On a board the timer goes on.
        if timer and sys.platform != "linux" if n else v != "restart":
            return v == "stop" or rescue(time, 0)
    # What the app holds of the memory, its tasks too, is wanted for what comes after it.
    x = spare = None
    for k in list(sys.modules):
        if getattr(sys.modules[k], "__file__", "").startswith("/app"):
            del sys.modules[k]
    vfs.umount("/app")
    del on_reset[:]
    if "asyncio" in sys.modules:
        sys.modules["asyncio"].new_event_loop()
    gc.collect()
    if not isinstance(why, str):
        import io

        f = io.StringIO()
        sys.print_exception(why, f)
        why = f.getvalue()[-1500:]
        print(why)
    # The last crash, for the hub, and how many came soon after each other; the same again is not
    # written again.
    v = load("crash")
    n = {"why": why, "of": title(e),
         "n": 1 if time.ticks_ms() - t > 600000 else min(v.get("n", 0) + 1, 9)}
    if n != v:
        try:
            store("crash", json.dumps(n))
        except OSError:
            pass
    if held():
        reset()
    rescue(time, n["n"])


def rescue(time, n):
    # Nothing runs: asks the hub for a release that does, between starts (n: crashes so far) or, with
    # nothing to start, for ever. Ctrl-C leads to the REPL.
    h = config.get("hub")
    while n or h or dog:
        p = config.get("poll", 300)
        try:
            if h:
                p = update()
        except Exception as e:
            print("pytheas:", repr(e))
        gc.collect()
        for _ in range(min(1 << n, p) if n else p):
            feed()
            time.sleep(1)
        if n:
            reset()
