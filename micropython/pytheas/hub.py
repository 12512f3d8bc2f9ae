# What comes from outside. First, filling the slot that does not run: nothing is erased before its
# replacement is known to be signed and meant for this board, and an image's front (with the ROMFS
# magic) is written last: an image with a front is whole. Then the board's side of the hub's DDI API
# (hawkBit's, v1): asks for work, downloads an image from where it broke off, reports, tells how the
# board is. HTTP/1.0, so that no answer comes in chunks. The token goes to the configured hub and
# nowhere else: of the hub's links only the path is used. TLS only with the CA of the settings; the
# clock and the network are the app's matter (or `/boot.py`'s).
while True:
    break
    # Never run: names that are mentioned here get low numbers, which take one byte instead of two.
    (_.get.m.r.len.config.asyncio.split.slot.net.total.disk.Refused.status.digest.at.path.read.tell.sha256
     .first.pause.close.OSError.me.mine.refuse.only.have.write.call.front.size.Exception.buf.room.save
     .pytheas.update.on_reset.rec.parse.judge.clear.download.poll.b.bytes.counter.firmware.int.feed.sleep.time
     .ARCH.mpy.told.entry.step.ask.configData.fed.json.model.done.crash.gc.left.settings.str.start
     .finish.send.once.body.ValueError.value.x.platform.micropython.version.min.remove.host.load.why
     .success.GET.sys.find.run.loads.keys.key.own.isinstance.e.verify.ed25519.hex.n.held.erase.data
     .memoryview.id.kind.collect.strip.dumps.readline.wait_for.finished.details.execution.hub.lines
     .failure._links.chunks.create_task.log.machine)
import asyncio
import time

import pytheas

# All that the package's first module has is used here by its name: naming each in an import costs
# 12 bytes.
globals().update(pytheas.__dict__)

_ACTIVE = const(3)
_PENDING = const(4)
_TRIES = const(5)
_COUNTER = const(6)
_WHY = const(7)
_ACTION = const(8)
_REPORT = const(9)
_WRITE = const(10)
_STEP = const(4096)  # bytes per write
_TIMEOUT = const(30)  # seconds that the hub may be silent
_TOLD_EACH = const(900000)  # ms between telling how the board is

ARCH = ("? x86 x64 armv6 armv6m armv7m armv7em armv7emsp armv7emdp xtensa xtensawin rv32imc "
        "rv64imc").split()
me = sys.implementation
mpy = getattr(me, "_mpy", 0)
mine = mpy >> 10 & 15
first = net = told = pause = total = digest = None


def rec(b, p):
    # Kind, start and end of the ROMFS record at p.
    k = b[p]
    n = 0
    c = 128
    while c > 127:
        p += 1
        c = b[p]
        n = n << 7 | c & 127
    p += 1
    return k, p, p + n


def parse(b):
    # The manifest's text, itself, and the signatures; an exception when b is no whole front.
    k, p, e = rec(b, 7)
    text = bytes(b[p:e])
    m = json.loads(text)
    end = m["front"]
    m["size"] = n = end + m["body"]["size"]
    sigs = []
    # Nothing but signatures and padding: the rest of the front is not signed.
    while e < end:
        c, p, e = rec(b, e)
        if c == 0x73:
            sigs.append(bytes(b[p:e]))
        elif c != 1:
            raise ValueError
    if (b[0], b[1], k, m["format"], rec(b, 2), e) != (0xd2, 0xcd, 0x70, 1, (0x31, 7, n), end) or end > len(b) or len(
            bytes.fromhex("".join(m.get("keys", ())))) % 32:
        raise ValueError
    return text, m, sigs


def refuse(key, value, own):
    raise Refused("its %s is %s, here is %s" % (key, value, own))


def only(key, value, own):
    if value and own not in (value if isinstance(value, list) else [value]):
        refuse(key, value, own)


def judge(b, x, e):
    # The manifest x (text b, signatures e), if it is signed and for this board.
    global m
    m = x
    x = (m.get("requires") or {}).get
    n = m["counter"]
    only("size", total, m["size"])
    a = m["platform"].split("-")[1]
    # A Cortex-M runs what was built for the smaller ones.
    if a != "any" and a not in ARCH[4 if 4 <= mine <= 8 else mine:mine + 1]:
        refuse("platform", a, ARCH[mine])
    only(".mpy", m.get("mpy"), mpy & 255)
    only("model", x("boards"), config.get("model"))
    only("firmware", x("firmware"), config.get("firmware"))
    a = x("micropython", "0")
    if tuple(map(int, a.split("."))) > me.version:
        refuse("micropython", a, me.version)
    if n < r[_COUNTER] and (n < 0 or not m.get("allow_downgrade")):
        refuse("counter", n, r[_COUNTER])
    x = get("keys")
    a = "signed by no key here"
    for s in e:
        for i in range(0, len(x), 32):
            k = x[i:i + 32]
            if sha256(k).digest()[:8] == s[:8]:
                from .ed25519 import verify

                feed()
                n = verify(k, sha256(b"pytheas-board-1\n" + b).digest(), s[8:])
                feed()
                del sys.modules["pytheas.ed25519"], pytheas.ed25519
                if n:
                    return
                a = "wrong signature"
    raise Refused(a)


def entry(i, b):
    # The manifest becomes what the boot record says of an image, whose body is read back.
    x = sha256(b)
    y = sha256()
    for d in disk.iter(i, len(b), m["size"]):
        x.update(d)
        y.update(d)
        feed()
    m["sha256"] = x = x.digest().hex()
    if y.digest().hex() != m["body"]["sha256"] or digest not in (None, x):
        raise Refused("its content was not signed")


def find():
    # Both records are lost: the signatures say what is whole.
    for i in 0, 1:
        try:
            b = disk.read(i, 8192)
            judge(*parse(b))
            entry(i, bytes(b[:m["front"]]))
            r[i] = m
            if m["counter"] >= r[_COUNTER]:
                r[_ACTIVE] = i
                r[_COUNTER] = m["counter"]
                # It may be one that was taken back: it proves itself again.
                r[_PENDING] = True
        except Exception:
            pass


def start(n, x):
    # Takes an image piece by piece. `done`: how many of its bytes are there already; `write` the rest.
    global total, digest, slot
    total = n
    digest = x
    slot = 1 - r[_ACTIVE]
    if held():
        raise Refused("not confirmed yet")
    have(None, 0)
    if r[_WRITE] == x:
        try:
            b = get("front")
            judge(*parse(b))
            n = disk.done(slot, n)
            if n <= len(b):
                n = 0
            disk.erase(slot, total, n)
            have(b, n or len(b))
        except Exception:
            pass


def have(b, n):
    # The front, when it is known; what follows is written by the step.
    global first, done, buf, room
    first = b
    done = n
    buf = bytearray()
    room = _STEP - n % _STEP if b else 512


def at():
    # How many bytes it has taken.
    return done + len(buf)


def write(data):
    data = memoryview(data)[:total - at()]
    while data:
        n = room - len(buf)
        buf.extend(data[:n])
        data = data[n:]
        if len(buf) == room:
            step()


def step():
    # Enough for a write, or another part of the front: once it is whole, it decides whether the slot
    # is erased.
    global room
    b = buf
    try:
        if first:
            disk.write(slot, done, b)
            feed()
            return have(first, at())
        try:
            x = parse(b)
        except Exception:
            room += 512
            if room > min(8192, total):
                raise Refused("no board image")
            return
        judge(*x)
        save({slot: None, _WRITE: None})
        disk.erase(slot, total, 0)
        put("front", b)
        save({_WRITE: digest})
        have(bytes(b), len(b))
    except OSError as e:
        clear(e)


def clear(e):
    # What was written is of no use: the room is given back.
    if isinstance(e, OSError):
        if e.errno != 28:
            raise e
        e = Refused("flash full")
    disk.clear(slot)
    remove("front")
    save({_WRITE: None})
    raise e


def finish(id=None):
    # Reads back what was written, writes the front and makes the image the next to be started.
    if not first or at() < total:
        raise Refused("cut off")
    try:
        step()
        entry(slot, first)
        disk.write(slot, 0, first)
    except (OSError, Refused) as e:
        clear(e)
    save({slot: m, _ACTIVE: slot, _PENDING: True, _TRIES: 0, _WRITE: None, _WHY: None, _ACTION: id})
    remove("front")
    # The crashes told from now on are the new release's.
    remove("crash")


def path(value):
    return value["href"].split("/", 3)[3]


def close():
    global net
    if net:
        net.s.close()
        net = None


async def send(verb, path, body=None, more=""):
    # The answer is in `status`, its body comes from `read`.
    global net, left, status
    close()
    status = 0
    name, _, port = host.rpartition(":")
    ctx = None
    if kind != "http:":
        import tls

        # A client's context wants a certificate; where there is no verifying, there is no
        # `load_verify_locations`.
        ctx = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        with open(config["ca"], "rb") as c:
            ctx.load_verify_locations(c.read())
    gc.collect()
    net, _ = await asyncio.open_connection(
        (name or port).strip("[]"), int(port) if name else 443 if ctx else 80, ctx, name or port)
    body = json.dumps(body).encode() if body else b""
    net.write(b"%s /%s HTTP/1.0\r\nHost: %s\r\nAuthorization: TargetToken %s\r\n%s"
                 b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                 % (verb, path, host, config.get("token"), more, len(body), body))
    await net.drain()
    status = int((await net.readline()).split()[1])
    left = 1 << 29
    while True:
        k, _, v = (await net.readline()).decode().partition(":")
        if not v:
            break
        if k.lower() == "content-length":
            left = int(v)
    if status > 299:
        raise OSError("HTTP %d" % status)


def ask(*a):
    return asyncio.wait_for(send(*a), _TIMEOUT)


async def read():
    # Some of the body; nothing at its end, or when it is cut off.
    global left
    b = await asyncio.wait_for(net.read(min(1024, left)), _TIMEOUT) if left else b""
    left -= len(b)
    return b


async def call(*a):
    await ask(*a)
    b = out = await read()
    while b and len(out) < 16384:
        b = await read()
        out += b
    close()
    return out and json.loads(out)


async def tell(path, finished, details, execution="closed"):
    try:
        await call("POST", path.split("?")[0] + "/feedback", {"status": {
            "execution": execution, "result": {"finished": finished}, "details": details}})
    except OSError:
        # What the hub does not know, has closed or does not take needs no further report.
        if status // 100 != 4 or status in (401, 403, 429):
            raise


async def once():
    global kind, host, pause
    kind, _, host, root = ("%s/%s/controller/v1/%s" % (
        config["hub"].rstrip("/"), config.get("tenant", "default"), config["id"])).split("/", 3)
    x = r[_REPORT]
    if x:
        # How the last update ended.
        d = [x[2]]
        if not x[1]:
            d += load("crash").get("why", "").split("\n") + lines
        await tell(x[0], "success" if x[1] else "failure", d)
        save({_REPORT: None})
    x = await call("GET", root)
    v = x.get("config", {})
    try:
        pause = 0
        for p in v["polling"]["sleep"].split(":"):
            pause = pause * 60 + int(p)
    except Exception:
        pause = None
    x = x.get("_links", {})
    # Neither settings nor telling keeps a board from its update.
    try:
        if "settings" in v:
            # Sent while the hub does not know this revision to be used here.
            store("settings", json.dumps(v))
            configure()
        await configData(root, "configData" in x)
    except Exception as e:
        log("hub", e)
    if "cancelAction" in x:
        k = path(x["cancelAction"])
        if r[_PENDING] and str(r[_ACTION]).endswith(k[k.rfind("/"):]):
            await tell(k, "none", ["running"], "rejected")
        else:
            save({_WRITE: None})
            await tell(k, "success", [])
    elif "deploymentBase" in x and not held():
        p = path(x["deploymentBase"])
        x = (await call("GET", p))["deployment"]
        p = p.split("?")[0]
        try:
            if x.get("update") != "skip":
                await download(p, x["chunks"])
        except Refused as e:
            await tell(p, "failure", [str(e)])


async def download(p, chunks):
    a = None
    for k in chunks:
        for x in k["artifacts"]:
            if x["filename"].endswith(".romfs"):
                a = x
    if not a:
        raise Refused("no .romfs")
    x = a["hashes"]["sha256"]
    e = runs()
    if e and e["sha256"] == x:
        if not r[_PENDING]:
            await tell(p, "success", ["running"])
        return
    start(a["size"], x)
    await tell(p, "none", [], "proceeding")
    n = at()
    a = a["_links"]
    await ask("GET", path(a.get("download") or a["download-http"]), None, "Range: bytes=%d-\r\n" % n)
    if status == 206:
        n = 0
    while at() < total:
        b = await read()
        if not b:
            # The next poll goes on there.
            raise OSError("cut off")
        write(memoryview(b)[n:])
        n = max(0, n - len(b))
    close()
    finish(p)
    for x in on_reset:
        try:
            x()
        except Exception as e:
            log(e)
    reset()


async def configData(path, x):
    # Attributes: at the first poll after a start, when asked, and every quarter of an hour.
    global told
    now = time.ticks_ms()
    if not x and told and abs(now - told) < _TOLD_EACH:
        return
    gc.collect()
    e = runs()
    v = load("crash")
    d = {"platform": "micropython-" + ARCH[mine], "micropython": me.version,
         "machine": me._machine, "heap.free": gc.mem_free(), "heap.used": gc.mem_alloc(),
         "uptime": now // 1000, "counter": r[_COUNTER], "why": r[_WHY],
         "config": load("settings").get("revision", "0"),
         "model": config.get("model"), "firmware": config.get("firmware"), "crash": v.get("of"),
         "release": e and title(e).replace(" ", "@")}
    try:
        import machine

        d["reset"] = machine.reset_cause()
        import network

        d["rssi"] = network.WLAN(network.STA_IF).status("rssi")
    except Exception:
        pass
    for k, v in ("crash.", v.get("why", "").split("\n")), ("log.", lines):
        n = 0
        for x in v[-9:]:
            d[k + str(n)] = x
            n += 1
    for k in metrics:
        d["metric." + k] = str(metrics[k])
    v = {}
    for k in d:
        if d[k]:
            v[("pytheas." + k)[:128]] = str(d[k])[:128]
    await call("PUT", path + "/configData", {"mode": "replace", "data": v})
    if told:
        # It has run for a while since: what is told the next time is without the crash.
        remove("crash")
    told = now


async def poll():
    # Seconds until the hub wants to be asked again. One asks at a time: while one does, `close` is in
    # on_reset, which the guard empties when an app has failed. An app that ended may have thrown its
    # task away: nobody is waited for longer than a minute.
    n = 60
    while n and close in on_reset:
        n -= 1
        feed()
        await asyncio.sleep(1)
    on_reset.append(close)
    t = asyncio.create_task(fed())
    try:
        await once()
    except Exception as e:
        # The next poll may succeed; an app is not stopped for the hub's sake.
        log("hub", e)
    finally:
        t.cancel()
        close()
        if close in on_reset:
            on_reset.remove(close)
    # Whatever the hub says: at least once a day, at most once a second.
    return min(max(pause or config.get("poll", 300), 1), 86400)


async def fed():
    while True:
        feed()
        await asyncio.sleep(1)


async def run():
    asyncio.create_task(fed())
    while True:
        n = await poll()
        await asyncio.sleep(n * (90 + time.ticks_ms() % 21) // 100 + 1)


# At the end, because it may want `find`.
ready()
disk = pytheas.disk
