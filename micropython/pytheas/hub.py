# The board's side of the hub's DDI API (hawkBit's, v1): asks for work, downloads an image into the
# other slot from where it broke off, reports, tells how the board is. HTTP/1.0, so that no answer
# comes in chunks. The token goes to the configured hub and nowhere else: of the hub's links only the
# path is used. TLS only with the CA of the settings; the clock and the network are the app's matter
# (or `/boot.py`'s).
import asyncio
import gc
import json
import sys
import time

import pytheas

from . import slots, write

TIMEOUT = 30  # seconds for each read and write
etag = None
told = None
pause = None


def path_of(links, name):
    return links[name]["href"].split("/", 3)[3]


class Hub:
    def __init__(self, s):
        self.s = s
        c = self.c = s.config
        u = c["hub"].rstrip("/"), c.get("tenant", "default"), c["id"]
        self.scheme, _, self.host, self.root = ("%s/%s/controller/v1/%s" % u).split("/", 3)
        self.f = None
        self.head = {}

    def close(self):
        if self.f:
            self.f.s.close()
            self.f = None

    async def within(self, work):
        return await asyncio.wait_for(work, TIMEOUT)

    async def ask(self, method, path, body=None, extra=""):
        # The answer's status; its headers are in `head`, its body comes from `read`.
        self.close()
        self.status = 0
        name, _, port = self.host.rpartition(":")
        ctx = None
        if self.scheme != "http:":
            import tls

            ctx = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
            ctx.verify_mode = tls.CERT_REQUIRED
            with open(self.c["ca"], "rb") as f:
                ctx.load_verify_locations(f.read())
        gc.collect()
        self.f = f = (await self.within(asyncio.open_connection(
            (name or port).strip("[]"), int(port) if name else 443 if ctx else 80, ctx,
            name or port)))[0]
        body = json.dumps(body).encode() if body else b""
        f.write(b"%s /%s HTTP/1.0\r\nHost: %s\r\nAuthorization: TargetToken %s\r\n%s"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (method, path, self.host, self.c.get("token"), extra, len(body), body))
        await self.within(f.drain())
        self.head = h = {}
        b = await self.within(f.readline())
        self.status = int(b.split()[1])
        for _ in range(64):
            b = await self.within(f.readline())
            k, _, v = b.decode().partition(":")
            if not v:
                break
            h[k.lower()] = v.strip()
        self.left = int(h.get("content-length", 1 << 29))
        return self.status

    async def read(self):
        # Some of the body; nothing at its end, or when it is cut off.
        b = await self.within(self.f.read(min(1024, self.left))) if self.left else b""
        self.left -= len(b)
        return b

    async def json(self, method, path, body=None, extra=""):
        status = await self.ask(method, path, body, extra)
        if status == 304:
            return
        out = b = await self.read()
        while b and len(out) < 16384:
            b = await self.read()
            out += b
        self.close()
        self.good(status < 400)
        if status == 200 and out:
            return json.loads(out)

    def good(self, yes):
        if not yes:
            raise OSError("the hub answers %d" % self.status)

    async def tell(self, action, finished, details, execution="closed", kind="deploymentBase"):
        try:
            await self.json("POST", "%s/%s/%s/feedback" % (self.root, kind, action), {"status": {
                "execution": execution, "result": {"finished": finished}, "details": details,
                "code": 1}})
        except OSError:
            # What the hub does not know, has closed or does not take needs no further report.
            if not 400 <= self.status < 500 or self.status in (401, 403, 429):
                raise

    async def poll(self):
        global etag, pause
        s = self.s
        r = s.r.get("report")
        if r:
            # How the last update ended.
            d = [r[2]]
            if not r[1]:
                d += slots.load("last.json").get("why", "").split("\n") + pytheas.lines
            await self.tell(r[0], "success" if r[1] else "failure", d)
            s.save({"report": None})
        r = await self.json("GET", self.root, None,
                            "If-None-Match: %s\r\n" % etag if etag else "")
        links = {}
        if r:
            etag = None
            tag = self.head.get("etag")
            f = r.get("config", {})
            try:
                pause = 0
                for n in f["polling"]["sleep"].split(":"):
                    pause = pause * 60 + int(n)
            except slots.BAD:
                pause = None
            if "settings" in f:
                slots.store("settings.json", json.dumps(f))
                pytheas.configure(s)
            links = r.get("_links", {})
        try:
            await self.health("configData" in links)
        except OSError as e:
            print("pytheas:", e)
        for k, do in ("cancelAction", self.cancel), ("deploymentBase", self.deploy):
            if k in links:
                return await do(path_of(links, k).split("?")[0].split("/")[-1])
        if r:
            etag = tag

    async def cancel(self, action):
        if self.s.r["pending"] and self.s.r["action"] == action:
            await self.tell(action, "none", ["it runs already"], "rejected", "cancelAction")
        else:
            self.s.save({"write": None})
            await self.tell(action, "success", ["given up"], "closed", "cancelAction")

    async def deploy(self, action):
        s = self.s
        if s.held():
            return
        r = await self.json("GET", "%s/deploymentBase/%s" % (self.root, action))
        if r["deployment"].get("update") == "skip":
            return
        try:
            for k in r["deployment"]["chunks"]:
                for a in k["artifacts"]:
                    if a["filename"].endswith(".romfs"):
                        return await self.install(action, a)
            raise slots.Refused("it has no image for boards")
        except slots.Refused as e:
            await self.tell(action, "failure", [str(e)])

    async def install(self, action, a):
        digest = a["hashes"]["sha256"]
        e = self.s.running()
        if e and e["sha256"] == digest:
            if not self.s.r["pending"]:
                await self.tell(action, "success", ["it runs already"])
            return
        w = self.s.writer(a["size"], digest)
        await self.tell(action, "none", ["downloading"], "proceeding")
        k = a["_links"]
        path = path_of(k, "download" if "download" in k else "download-http")
        tries = 0
        while w.at() < w.total:
            at = w.at()
            try:
                await self.fetch(w, path, at)
            except (OSError, asyncio.TimeoutError):
                tries = 0 if w.at() > at else tries + 1
                if tries > 2:
                    raise
                await asyncio.sleep(1)
        self.close()
        w.finish(action)
        for f in pytheas.before_reset:
            try:
                f()
            except Exception as e:
                pytheas.log(e)
        from .boot import reset

        reset()

    async def fetch(self, w, path, at):
        status = await self.ask("GET", path, None, "Range: bytes=%d-\r\n" % at)
        part = "bytes %d-" % at in self.head.get("content-range", "")
        self.good(status == (206 if part else 200))
        skip = 0 if part else at
        while w.at() < w.total:
            b = await self.read()
            if not b:
                raise OSError("cut off")
            n = min(skip, len(b))
            skip -= n
            w.write(memoryview(b)[n:])
            await asyncio.sleep(0)

    async def health(self, asked):
        # Attributes: at the first poll after a start, when asked, and every quarter of an hour.
        global told
        now = time.ticks_ms()
        if not asked and told is not None and time.ticks_diff(now, told) < 900000:
            return
        s = self.s
        e = s.running()
        i = sys.implementation
        gc.collect()
        d = {"agent": "board",
             "config": slots.load("settings.json").get("revision", "0"), "platform": "micropython-" + write.ARCH[write.MPY >> 10 & 15],
             "micropython": i.version, "machine": i._machine, "heap.free": gc.mem_free(),
             "heap.used": gc.mem_alloc(), "uptime": now // 1000, "counter": s.r["counter"],
             "why": s.r.get("why"), "model": self.c.get("model"),
             "firmware": self.c.get("firmware")}
        if e:
            d["release"] = "%s@%s" % (e["name"], e["version"])
        try:
            import machine

            d["reset"] = machine.reset_cause()
            import network

            d["rssi"] = network.WLAN(network.STA_IF).status("rssi")
        except Exception:
            pass
        for k, v in (("crash", slots.load("last.json").get("why", "").split("\n")),
                     ("log", pytheas.lines)):
            for n, x in enumerate(v[-9:]):
                d["%s.%d" % (k, n)] = x
        for k, v in pytheas.metrics.items():
            d["metric." + k] = v
        await self.json("PUT", self.root + "/configData", {
            "data": {("pytheas." + k)[:128]: str(v)[:128] for k, v in d.items() if v}})
        told = now


async def fed():
    while True:
        slots.feed()
        await asyncio.sleep(1)


async def poll():
    # Seconds until the hub wants to be asked again.
    h = Hub(slots.Slots())
    t = asyncio.create_task(fed())
    try:
        await h.poll()
        n = pause
    except OSError:
        if "retry-after" not in h.head:
            raise
        n = int(h.head["retry-after"])
    finally:
        t.cancel()
        h.close()
    # Whatever the hub says: at least once a day, at most once a second.
    return min(max(n or h.c.get("poll", 300), 1), 86400)


async def run():
    import random

    while True:
        n = pause or slots.load("config.json").get("poll", 300)
        try:
            n = await poll()
        except Exception as e:
            # The next poll may succeed; an app is not stopped for the hub's sake.
            pytheas.log("hub:", e)
        for _ in range(n * random.randint(90, 110) // 100 + 1):
            slots.feed()
            await asyncio.sleep(1)
