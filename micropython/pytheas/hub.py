# The board's side of the hub's DDI API (hawkBit's, v1) over HTTP/1.1: asks for work, downloads an
# image into the other slot from where it broke off, reports, tells how the board is. One connection
# per poll. The token goes to the configured hub and nowhere else: of the hub's links only the path
# is used. TLS only with the CA of the settings.
import asyncio
import gc
import json
import sys
import time

import pytheas

from . import slots
from .slots import Refused, Slots

TIMEOUT = 30  # seconds for each read and write
etag = None
told = None


class HubError(Exception):
    pass


class Http:
    def __init__(self, c):
        self.c = c
        u = c["hub"]
        self.tls = u.startswith("https://")
        host = u[u.index("://") + 3:].split("/", 1)[0]
        self.host = host
        name, _, port = host.rpartition(":")
        if not name or port.endswith("]"):
            name, port = host, 443 if self.tls else 80
        self.name = name.strip("[]")
        self.port = int(port)
        self.s = None

    async def open(self):
        ctx = None
        if self.tls:
            import tls

            ca = self.c.get("ca")
            if not ca:
                raise HubError("https needs `ca` in config.json")
            if time.gmtime()[0] < 2025 and sys.platform != "linux":
                # Certificates are only valid at a time.
                import ntptime

                ntptime.settime()
            ctx = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
            ctx.verify_mode = tls.CERT_REQUIRED
            with open(ca, "rb") as f:
                ctx.load_verify_locations(f.read())
            gc.collect()
        self.s, _ = await self.within(
            asyncio.open_connection(self.name, self.port, ctx, self.name if ctx else None))

    async def within(self, work):
        slots.feed()
        return await asyncio.wait_for(work, TIMEOUT)

    def close(self):
        s = self.s
        self.s = None
        if s:
            try:
                s.s.close()
            except OSError:
                pass

    async def line(self):
        b = await self.within(self.s.readline())
        if not b or b[-1] != 10 or len(b) > 2048:
            raise HubError("the hub's answer is cut off")
        return b.strip()

    async def ask(self, method, path, body=None, extra=""):
        # The answer's status; its headers are in `head`, its body comes from `read`.
        if body is not None:
            body = json.dumps(body).encode()
        text = "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: TargetToken %s\r\n%s" % (
            method, path, self.host, self.c.get("token", ""), extra)
        if body is not None:
            text += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        text = (text + "\r\n").encode() + (body or b"")
        old = self.s
        if not old:
            await self.open()
        try:
            status = await self.send(text)
        except (OSError, HubError):
            # A connection that was kept may have been closed meanwhile.
            self.close()
            if not old:
                raise
            await self.open()
            status = await self.send(text)
        return status

    async def send(self, text):
        self.s.write(text)
        await self.within(self.s.drain())
        while True:
            b = (await self.line()).split(None, 2)
            status = int(b[1])
            self.head = h = {}
            for _ in range(64):
                b = await self.line()
                if not b:
                    break
                k, _, v = b.decode().partition(":")
                h[k.lower()] = v.strip()
            if status >= 200:
                break
        self.chunked = h.get("transfer-encoding") == "chunked"
        n = h.get("content-length")
        self.left = 0 if status in (204, 304) or self.chunked else int(n) if n else 1 << 30
        return status

    async def read(self, n):
        # Up to n bytes of the body; nothing at its end.
        if self.chunked and not self.left:
            self.left = int((await self.line()).split(b";")[0], 16)
            if not self.left:
                while await self.line():
                    pass
                self.chunked = False
                return b""
        if not self.left:
            return b""
        b = await self.within(self.s.read(min(n, self.left)))
        if not b:
            if self.left > 1 << 29:
                self.left = 0
                return b
            raise HubError("the hub's answer is cut off")
        self.left -= len(b)
        if self.chunked and not self.left:
            await self.line()
        return b

    async def text(self):
        # A whole small body.
        out = b""
        while True:
            b = await self.read(1024)
            if not b:
                break
            out += b
            if len(out) > 16384:
                raise HubError("the hub's answer is too long")
        if self.head.get("connection") == "close" or self.left:
            self.close()
        return out

    async def json(self, method, path, body=None, extra=""):
        status = await self.ask(method, path, body, extra)
        b = await self.text()
        if status >= 300 and status != 304:
            raise HubError("the hub answers %d to %s %s" % (status, method, path), status,
                           self.head.get("retry-after"))
        return status, json.loads(b) if b and status == 200 else None


def seconds(text, default):
    try:
        h, m, s = text.split(":")
        return max(int(h) * 3600 + int(m) * 60 + int(s), 1)
    except (ValueError, AttributeError):
        return default


def path_of(href):
    return "/" + href.split("://", 1)[-1].split("/", 1)[1]


class Hub:
    pause = 300

    def __init__(self, s):
        self.s = s
        c = s.config
        self.http = Http(c)
        u = c["hub"].rstrip("/")
        u = u[u.index("://") + 3:].partition("/")[2]
        self.root = "%s/%s/controller/v1/%s" % ("/" + u if u else "", c.get("tenant", "default"),
                                                c["id"])

    async def tell(self, action, execution, finished="none", details=(), code=None,
                   kind="deploymentBase"):
        b = {"status": {"execution": execution, "result": {"finished": finished},
                        "details": [d[:500] for d in details]}}
        if code:
            b["status"]["code"] = code
        await self.http.json("POST", "%s/%s/%s/feedback" % (self.root, kind, action), b)

    async def close(self, action, good, details, kind="deploymentBase"):
        try:
            await self.tell(action, "closed", "success" if good else "failure", details, kind=kind)
        except HubError as e:
            # What the hub does not know or has closed needs no further report.
            if len(e.args) < 2 or not 400 <= e.args[1] < 500 or e.args[1] in (401, 403, 408, 425, 429):
                raise

    async def report(self):
        # How the last update ended.
        s = self.s
        r = s.r.get("report")
        if r:
            d = [r[2]]
            if not r[1]:
                d += slots.load("last.json").get("why", "").split("\n")
                d += pytheas.lines
            await self.close(r[0], r[1], [x for x in d if x][:40])
            s.save(report=None)

    async def poll(self):
        global etag
        c = self.s.config
        default = c.get("poll", 300)
        network(c)
        await self.report()
        tag = "If-None-Match: %s\r\n" % etag if etag else ""
        _, r = await self.http.json("GET", self.root, extra=tag)
        if r is None:
            await self.health(False)
            return self.pause
        etag = None
        tag = self.http.head.get("etag")
        f = r.get("config") or {}
        Hub.pause = seconds((f.get("polling") or {}).get("sleep"), default)
        if isinstance(f.get("settings"), dict):
            self.settings(f["settings"])
        links = r.get("_links") or {}
        await self.health("configData" in links)
        for k in ("cancelAction", "deploymentBase"):
            if k in links:
                action = path_of(links[k]["href"]).split("?")[0].rsplit("/", 1)[1]
                await (self.cancel if k[0] == "c" else self.deploy)(action)
                return self.pause
        etag = tag
        return self.pause

    def settings(self, new):
        if new != slots.load("settings.json"):
            slots.store("settings.json", json.dumps(new).encode())
            pytheas.settings.update(new)

    async def cancel(self, action):
        s = self.s
        if s.r["pending"] and str(s.r.get("action")) == action:
            return await self.tell(action, "rejected", details=("the new release runs already",),
                                   kind="cancelAction")
        s.save(write=None)
        await self.close(action, 1, ("the update was given up",), "cancelAction")

    async def deploy(self, action):
        s = self.s
        if s.r["pending"]:
            return
        _, r = await self.http.json("GET", "%s/deploymentBase/%s" % (self.root, action))
        d = r["deployment"]
        if d.get("update") == "skip":
            return
        try:
            for k in d["chunks"]:
                for a in k["artifacts"]:
                    if a["filename"].endswith(".romfs"):
                        return await self.install(action, a)
            raise Refused("the release has no image for boards")
        except Refused as e:
            pytheas.log("refused:", e)
            await self.close(action, 0, (str(e),))

    async def install(self, action, a):
        s = self.s
        size = a["size"]
        digest = a["hashes"]["sha256"]
        e = s.running()
        if e and e["sha256"] == digest and not e.get("bad"):
            return await self.close(action, 1, ("it runs already",))
        w = s.writer(size, digest)
        await self.tell(action, "proceeding", code=1)
        k = a["_links"]
        path = path_of((k.get("download") or k["download-http"])["href"])
        tries = 0
        while w.at() < size:
            at = w.at()
            try:
                await self.fetch(w, path, at)
            except (OSError, HubError, asyncio.TimeoutError) as x:
                self.http.close()
                tries = 0 if w.at() > at else tries + 1
                if tries > 2:
                    raise
                print("pytheas: download at", w.at(), x)
                await asyncio.sleep(2)
        w.finish(action)
        try:
            await self.tell(action, "proceeding", code=3)
        except Exception as x:
            print("pytheas: hub:", x)
        self.http.close()
        for f in pytheas.before_reset:
            f()
        from .boot import reset

        reset()

    async def fetch(self, w, path, at):
        h = self.http
        status = await h.ask("GET", path, extra="Range: bytes=%d-\r\n" % at if at else "")
        if status == 200:
            skip = at
        elif status == 206 and h.head.get("content-range", "").startswith("bytes %d-" % at):
            skip = 0
        else:
            raise HubError("the hub answers %d to a download" % status, status,
                           h.head.get("retry-after"))
        while w.at() < w.total:
            b = await h.read(1024)
            if not b:
                raise HubError("the download is cut off")
            n = min(skip, len(b))
            skip -= n
            w.write(memoryview(b)[n:])
            await asyncio.sleep(0)
        if await h.read(1):
            raise Refused("it is longer than announced")

    async def health(self, asked):
        # Attributes: at the first poll after a start, when asked, and every quarter of an hour.
        global told
        now = time.ticks_ms()
        if not asked and told is not None and time.ticks_diff(now, told) < 900000:
            return
        s = self.s
        c = s.config
        e = s.running()
        i = sys.implementation
        gc.collect()
        d = {"agent": "board", "platform": "micropython-%s" % slots.ARCH[i._mpy >> 10 & 15],
             "micropython": ".".join([str(x) for x in i.version[:3]]), "machine": i._machine,
             "heap.free": gc.mem_free(), "heap.used": gc.mem_alloc(), "uptime": now // 1000,
             "counter": s.r["counter"], "why": s.r.get("why"), "model": c.get("model"),
             "firmware": c.get("firmware")}
        if e:
            d["release"] = "%s@%s" % (e["name"], e["version"])
            d["slot"] = "ab"[s.r["run"]]
        try:
            import machine

            d["reset"] = machine.reset_cause()
        except (ImportError, AttributeError):
            pass
        d["rssi"] = rssi()
        t = slots.load("last.json").get("why", "").strip().split("\n")
        if t[-1]:
            d["crash"] = t[-1]
            for n, x in enumerate(t[-12:-1]):
                d["crash.%d" % n] = x.strip()
        for n, x in enumerate(pytheas.lines[-8:]):
            d["log.%d" % n] = x
        for k in pytheas.metrics:
            d["metric." + k] = pytheas.metrics[k]
        await self.http.json("PUT", self.root + "/configData", {
            "mode": "merge", "data": {("pytheas." + k)[:128]: str(d[k])[:128] for k in d
                                      if d[k] is not None}})
        told = now


def network(c):
    # Joins the WiFi of the settings, if the app has not.
    if c.get("wifi"):
        import network

        w = network.WLAN(network.STA_IF)
        w.active(True)
        if not w.isconnected():
            w.connect(*c["wifi"])
            for _ in range(200):
                if w.isconnected():
                    break
                slots.feed()
                time.sleep_ms(100)


def rssi():
    try:
        import network

        return network.WLAN(network.STA_IF).status("rssi")
    except Exception:
        return None


async def poll():
    h = Hub(Slots())
    try:
        return await h.poll()
    except HubError as e:
        if len(e.args) > 2 and e.args[2] and e.args[1] in (429, 503):
            return seconds("0:0:" + e.args[2], 60)
        raise
    finally:
        h.http.close()


async def run():
    import random

    while True:
        n = Slots().config.get("poll", 300)
        try:
            n = await poll()
        except Exception as e:
            # The next poll may succeed; an app is not stopped for the hub's sake.
            pytheas.log("hub:", e)
        end = time.ticks_add(time.ticks_ms(), int(n * random.randint(900, 1100)))
        while time.ticks_diff(end, time.ticks_ms()) > 0:
            slots.feed()
            await asyncio.sleep(1)
