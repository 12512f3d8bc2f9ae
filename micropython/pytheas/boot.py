# The guard: `/main.py` is `import pytheas.boot; pytheas.boot.run()`. It counts a start before it
# happens, runs the newest verified image, and takes a release back that does not confirm itself. It
# needs nothing of the app: when there is none to run, the board stays reachable by REPL and hub.
import gc
import sys
import time

from . import slots

try:
    import machine
except ImportError:
    machine = None
if sys.platform == "linux":
    from . import unix as machine  # noqa: F811

timer = None


def reset():
    if hasattr(machine, "reset"):
        machine.reset()
    sys.exit(75)


def trace(e):
    import io

    f = io.StringIO()
    sys.print_exception(e, f)
    return f.getvalue()[-1500:]


def crashed(why):
    # Remembers the last crash for the hub; how many came soon after each other.
    import json

    last = slots.load("last.json")
    n = 1 if time.ticks_ms() > 600000 else last.get("n", 0) + 1
    try:
        slots.store("last.json", json.dumps({"why": why, "n": n}).encode())
    except OSError:
        pass
    return n


def missed(_=None):
    # The time for `pytheas.confirm()` is over.
    s = slots.Slots()
    if s.r["pending"]:
        try:
            s.revert("not confirmed in %d s" % s.config.get("confirm", 60))
        finally:
            reset()


def deadline(seconds):
    # Calls `missed` later, if this board has a timer; the count of starts works without.
    global timer
    if sys.platform == "linux":
        machine.alarm(seconds)
        return True
    for i in (-1, 3, 0):
        try:
            timer = machine.Timer(i, mode=machine.Timer.ONE_SHOT, period=seconds * 1000,
                                  callback=missed)
            return True
        except (AttributeError, ValueError, OSError):
            pass


def confirmed():
    global timer
    if sys.platform == "linux":
        machine.alarm(0)
    elif timer:
        timer.deinit()
        timer = None


def waits(e):
    # Whether this release runs and is not confirmed yet.
    s = slots.Slots()
    return s.r["pending"] and s.running()["sha256"] == e["sha256"]


def call(entry):
    m, _, f = entry.partition(":")
    m = __import__(m, None, None, (1,))
    for n in f.split(".") if f else ():
        m = getattr(m, n)
    if f:
        r = m()
        if hasattr(r, "send"):
            import asyncio

            asyncio.run(r)


def wait(seconds):
    end = time.ticks_add(time.ticks_ms(), int(seconds * 1000))
    while time.ticks_diff(end, time.ticks_ms()) > 0:
        slots.feed()
        time.sleep_ms(100)


def rescue(s, n):
    # Nothing runs: asks the hub for a release that does, between starts (n: crashes so far) or, with
    # nothing to start, for ever. Ctrl-C leads to the REPL.
    poll = s.config.get("poll", 300)
    while True:
        pause = min(2 ** min(n, 10), poll) if n else poll
        if s.config.get("hub"):
            try:
                import pytheas

                pytheas.update()
            except Exception as e:
                print("pytheas: hub:", e)
        elif not n:
            return
        gc.collect()
        wait(pause)
        if n:
            reset()


def run():
    s = slots.Slots()
    c = s.config
    if c.get("watchdog") and hasattr(machine, "WDT"):
        slots.dog = machine.WDT(timeout=int(c["watchdog"] * 1000))
    data = s.choose()
    if data is None:
        print("pytheas: nothing to run:", s.r.get("why"))
        return rescue(s, 0)
    e = s.running()
    pending = s.r["pending"]
    timed = pending and deadline(c.get("confirm", 60))
    n = 0
    try:
        import vfs

        for m in ("/rom", "/app"):
            # What the firmware mounted there by itself may be the other slot.
            if m == "/app" or isinstance(s.disk, slots.Rom) and 0 in s.disk.ids:
                try:
                    vfs.umount(m)
                except OSError:
                    pass
                sys.path[:] = [p for p in sys.path if p != m and p != m + "/lib"]
        vfs.mount(vfs.VfsRom(data), "/app")
        sys.path[:0] = ["/app", "/app/lib"]
        import pytheas

        pytheas.settings.update(e.get("config") or {})
        pytheas.settings.update(c.get("settings") or {})
        pytheas.settings.update(slots.load("settings.json"))
        del data, s, c
        gc.collect()
        call(e["entry"])
        if not pending or timed or not waits(e):
            return
        why = "it ended without pytheas.confirm()"
    except KeyboardInterrupt as x:
        if pending:
            # Someone at the REPL is no failed start.
            confirmed()
            s = slots.Slots()
            if waits(e):
                s.save(tries=s.r["tries"] - 1)
        sys.print_exception(x)
        return
    except SystemExit:
        if not pending or not waits(e):
            raise
        why = "it exited without pytheas.confirm()"
    except Exception as x:
        sys.print_exception(x)
        why = trace(x)
    n = crashed(why)
    if pending and waits(e):
        reset()
    rescue(slots.Slots(), n)
