# Pytheas on a board: what an app may call. Everything else is loaded when it is needed.
#
#   pytheas.confirm()           this release works: keep it
#   pytheas.log(text)           a line for the hub (the last ones are kept)
#   pytheas.metric(name, value) a number for the hub
#   pytheas.settings            the app's settings
#   pytheas.update()            asks the hub once; may reset into a new release
#   pytheas.run_forever()       a task that does so for ever
from .slots import Refused, Slots, feed, load  # noqa: F401

settings = {}  # filled by the guard before the app starts, and from then on by the hub
metrics = {}
lines = []
before_reset = []  # called before an update restarts the board


def configure(s):
    # The release's, over them the board's, over them the hub's.
    settings.clear()
    for v in (s.running() or {}).get("config"), s.config.get("settings"), load(
            "settings.json").get("settings"):
        settings.update(v or {})


def confirm():
    done = Slots().confirm()
    import sys

    b = sys.modules.get("pytheas.boot")
    if b:
        b.confirmed()
    return done


def log(*words):
    lines.append(" ".join([str(w) for w in words])[:200])
    del lines[:-20]


def metric(name, value):
    metrics[name] = value


def update():
    # Seconds until the hub wants to be asked again.
    import asyncio

    return asyncio.run(poll())


async def poll():
    from . import hub

    return await hub.poll()


async def run_forever():
    from . import hub

    await hub.run()
