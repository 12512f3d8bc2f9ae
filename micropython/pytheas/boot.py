# The guard: `/main.py` is `import pytheas.boot; pytheas.boot.run()`. It counts a start before it
# happens, runs the newest verified image, and takes a release back that does not confirm itself. It
# needs nothing of the app: when there is none to run, the board stays reachable by REPL and hub.
import gc
import io
import json
import os
import sys
import time

import vfs

import pytheas

from . import slots

if sys.platform == "linux":
    from . import unix as machine
else:
    import machine

timer = None
if pytheas.__path__ == "pytheas":
    # What is imported later is found, too, when the app has changed the folder.
    pytheas.__path__ = os.getcwd().rstrip("/") + "/pytheas"


reset = machine.reset


def waits(e):
    # Whether this release runs and is not confirmed yet.
    s = slots.Slots()
    return e and s.r["pending"] and s.running() == e


def missed(_):
    # The time for `pytheas.confirm()` is over.
    s = slots.Slots()
    if s.held():
        try:
            s.end(0, "not confirmed in time")
        finally:
            reset()


def deadline(seconds):
    # Calls `missed` later, if this board has a timer; counting the starts works without.
    global timer
    for i in -1, 3, 0:
        try:
            timer = machine.Timer(i)
            timer.init(mode=machine.Timer.ONE_SHOT, period=seconds * 1000, callback=missed)
            return
        except (AttributeError, ValueError, OSError):
            timer = None


def confirmed():
    if timer:
        timer.deinit()


def rescue(s, n):
    # Nothing runs: asks the hub for a release that does, between starts (n: crashes so far) or, with
    # nothing to start, for ever. Ctrl-C leads to the REPL.
    while n or s.config.get("hub"):
        try:
            if s.config.get("hub"):
                pytheas.update()
        except Exception as e:
            print("pytheas:", e)
        gc.collect()
        p = s.config.get("poll", 300)
        for _ in range(min(1 << n, p) if n else p):
            slots.feed()
            time.sleep(1)
        if n:
            reset()


def run():
    try:
        start()
    except Exception as e:
        # The guard itself failed, for want of memory perhaps: a start anew, and time for Ctrl-C.
        print("pytheas:", repr(e))
        time.sleep(3)
        reset()


def clear():
    # What the app holds of the memory, its tasks too, is wanted for what comes after it.
    for k in list(sys.modules):
        if getattr(sys.modules[k], "__file__", "").startswith("/app"):
            del sys.modules[k]
    try:
        vfs.umount("/app")
    except OSError:
        pass
    del pytheas.before_reset[:]
    if "asyncio" in sys.modules:
        sys.modules["asyncio"].new_event_loop()
    gc.collect()


def start():
    s = slots.Slots()
    c = s.config
    if c.get("watchdog") and hasattr(machine, "WDT"):
        slots.dog = machine.WDT(timeout=c["watchdog"] * 1000)
    e = r = None
    try:
        data = s.choose()
        if data is None:
            print("pytheas: nothing to run", s.r.get("why"))
            return rescue(s, 0)
        e = s.r["slots"][slots.now]
        if s.held():
            deadline(c.get("confirm", 60))
        for m in "/rom", "/app":
            # What the firmware mounted there by itself may be the other slot.
            if m == "/app" or c.get("backend") == "rom":
                try:
                    vfs.umount(m)
                except OSError:
                    pass
                sys.path[:] = [p for p in sys.path if not p.startswith(m)]
        vfs.mount(vfs.VfsRom(data), "/app")
        sys.path[:0] = "/app", "/app/lib"
        pytheas.configure(s)
        data = s = None
        gc.collect()
        m, _, f = e["entry"].partition(":")
        r = __import__(m, None, None, (1,))
        if f:
            for n in f.split("."):
                r = getattr(r, n)
            r = r()
            if hasattr(r, "send"):
                import asyncio

                asyncio.run(r)
        # On a board the timer goes on behind the REPL.
        if timer and sys.platform != "linux" or not waits(e):
            return
        why = "it ended without pytheas.confirm()"
    except KeyboardInterrupt:
        # Someone at the REPL is no failed start.
        confirmed()
        s = slots.Slots()
        try:
            if s.r["tries"]:
                s.save({"tries": s.r["tries"] - 1})
        except OSError:
            pass
        raise
    except SystemExit:
        if not waits(e):
            raise
        why = "it exited without pytheas.confirm()"
    except BaseException as x:
        # A cancelled main task is no Exception.
        why = x
    r = None
    clear()
    if not isinstance(why, str):
        f = io.StringIO()
        sys.print_exception(why, f)
        why = f.getvalue()[-1500:]
    print(why)
    # The last crash, for the hub, and how many came soon after each other.
    n = 1 if time.ticks_ms() > 600000 else slots.load("last.json").get("n", 0) + 1
    try:
        slots.store("last.json", json.dumps({"why": why, "n": n}))
    except OSError:
        pass
    s = slots.Slots()
    if e and s.held():
        reset()
    rescue(s, min(n, 9))
