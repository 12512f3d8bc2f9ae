#!/usr/bin/env python3
"""What an update costs the agent: from the poll that finds it to the switch, over HTTP on loopback.

    bench/agent.py DIR [NAME...]      DIR/NAME-a and DIR/NAME-b as bench/delta.sh makes them

Publishes both trees of each pair (made releases by a `pytheas.json` and a program), lets the agent
install the first, offers it the second, and prints a Markdown table: time from the request for the
deployment until `current` leads to the new slot, everything durable by then; bytes on the wire in
both directions, requests and headers included, until then; peak memory of the agent's process
(VmHWM: the first install is in another process); beside them `cp -a` of the new tree on the same
disk, alone and with `sync -f`, in turns with the updates, fastest of RUNS.

PYTHEAS (release build) and AGENT (`cargo xtask size` builds it) are the programs. WORK is a folder
on the disk to measure. All is Linux and Python's standard library."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PYTHEAS = os.environ.get("PYTHEAS", "pytheas")
AGENT = os.environ.get("AGENT", "target/x86_64-unknown-linux-gnu/agent/pytheas-agent")
RUNS = int(os.environ.get("RUNS", "3"))
FROM = Path(sys.argv[1]).resolve()
NAMES = sys.argv[2:] or ["octo", "data", "pf"]
WORK = Path(os.environ.get("WORK", FROM / "agent-bench")).resolve()
TOKEN = "bench"


class Hub:
    """Enough of DDI for one device, and the repository's files; counts what crosses the wire."""

    def __init__(self, repo):
        self.repo, self.offer, self.asked, self.closed = repo, None, None, None
        self.bytes, self.parts = 0, {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def count(self, what, size):
        self.bytes += size
        if self.asked:
            self.parts[what] = self.parts.get(what, 0) + size

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = connection.makefile("rb", buffering=1 << 16)
        while line := reader.readline():
            taken, headers = len(line), {}
            while (header := reader.readline()).strip():
                taken += len(header)
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
            method, path = line.decode().split()[:2]
            path = path.partition("?")[0]
            if path.endswith("/deploymentBase/1") and self.asked is None:
                self.asked, self.parts = time.perf_counter(), {}
            if path.startswith("/repo/"):
                what, answer = self.kind(path), self.file(path[6:], headers.get("range"))
            else:
                what, answer = "polling and reports", self.ddi(method, path, body)
            self.count(what, taken + 2 + len(body))
            for part in answer:
                connection.sendall(part)
                self.count(what, len(part))

    def kind(self, path):
        if "/metadata/" in path or path.endswith(("root.json", "timestamp.json")):
            return "TUF metadata"
        if path.endswith("release.json"):
            return "release document"
        return "content"

    def file(self, name, wanted):
        path = self.repo / name
        if not path.is_file():
            return [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"]
        data, head = path.read_bytes(), "HTTP/1.1 200 OK\r\n"
        if wanted:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            start, end = int(start), min(int(end or len(data)), len(data) - 1)
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end}/{len(data)}\r\n"
            data = data[start:end + 1]
        return [f"{head}Content-Type: application/octet-stream\r\nContent-Length: {len(data)}\r\n\r\n".encode(), data]

    def ddi(self, method, path, body):
        base = f"{self.url}/default/controller/v1/dev1"
        if path == "/api/v1/enrolment":
            answer = {"state": "accepted", "token": TOKEN, "tenant": "default"}
        elif path.endswith("/dev1"):
            links = {"deploymentBase": {"href": f"{base}/deploymentBase/1"}} if self.offer else {}
            answer = {"config": {"polling": {"sleep": "00:00:01"}}, "_links": links}
        elif path.endswith("/deploymentBase/1"):
            metadata = [{"key": "pytheas.target", "value": self.offer}, {"key": "pytheas.format", "value": "1"}]
            chunk = {"part": "bApp", "name": "app", "version": "1", "metadata": metadata, "artifacts": []}
            answer = {"id": "1", "deployment": {"download": "forced", "update": "forced", "chunks": [chunk]}}
        else:
            answer = {}
            status = json.loads(body or b"{}").get("status", {})
            if status.get("execution") == "closed":
                self.offer, self.closed = None, status
        text = json.dumps(answer).encode()
        return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text]


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **more).stdout


def prepared(name, side):
    """The tree with what makes it a release; its files are links, nobody writes to them."""
    out = WORK / f"{name}-{side}"
    if not out.exists():
        run("cp", "-al", FROM / f"{name}-{side}", out)
        (out / "bench").mkdir()
        (out / "bench/app").write_text("#!/bin/sh\nexec sleep 100000\n")
        (out / "bench/app").chmod(0o755)
        record = {"format": 1, "name": name, "version": "1.0.0" if side == "a" else "1.1.0", "form": "bundle",
                  "platform": "linux-x86_64", "entry": "bench/app",
                  "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 20000, "stay_up_ms": 100}}
        (out / "pytheas.json").write_text(json.dumps(record))
    return out


def published(name):
    keys, repo = WORK / "keys", WORK / f"{name}-repo"
    if not keys.exists():
        run(PYTHEAS, "keys", "init", "--keys", keys)
    targets = repo / "targets.txt"
    if not targets.exists():
        said = [json.loads(run(PYTHEAS, "--json", "publish", prepared(name, side), "--repo", repo, "--keys", keys))
                for side in "ab"]
        targets.write_text("\n".join(one["target"] for one in said))
    return repo, targets.read_text().split("\n")


def agent(hub, state, run_for):
    args = [AGENT, "run", "--state", state, "--hub", hub.url, "--id", "dev1", "--root", WORK / "keys/root.json",
            "--poll-interval", "200ms"]
    with open(f"{state}.log", "a") as log:
        process = subprocess.Popen([str(part) for part in args], stdout=subprocess.DEVNULL, stderr=log,
                                   env={**os.environ, "PYTHEAS_LOG": os.environ.get("PYTHEAS_LOG", "info")})
    try:
        return run_for(process)
    finally:
        process.terminate()
        process.wait()


def spent(pid):
    """Seconds of CPU, its threads' too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait(what, found):
    for _ in range(600_000):
        if found():
            return
        time.sleep(0.0005)
    raise SystemExit(f"{what}: waited in vain")


def put_away(old):
    """Out of the way, removed at the end: ext4 searches long for an inode where it freed many in the
    last minute, and what is measured would pay for it, ours and `cp`."""
    if old.exists():
        aside = WORK / "aside"
        aside.mkdir(exist_ok=True)
        old.rename(aside / str(time.time_ns()))


def update(name):
    """One update on a fresh device: seconds, bytes, kinds of bytes, KiB, seconds of CPU."""
    repo, (first, second) = published(name)
    hub, state = Hub(repo), WORK / "state"
    for old in WORK.glob("state*"):
        put_away(old)

    def install(_):
        hub.offer = first
        wait("install", lambda: hub.closed)
        time.sleep(0.6)

    def go(process):
        time.sleep(1)
        os.sync()
        link, before, used = state / "current", os.readlink(state / "current"), spent(process.pid)
        hub.closed, hub.asked, hub.offer = None, None, second
        wait("update", lambda: os.readlink(link) != before)
        switched, used = time.perf_counter(), spent(process.pid) - used
        parts = dict(hub.parts)
        wait("end", lambda: hub.closed)
        if hub.closed["result"]["finished"] != "success":
            raise SystemExit(f"{name}: {hub.closed}")
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        return switched - hub.asked, sum(parts.values()), parts, peak, used

    agent(hub, state, install)
    return agent(hub, state, go)


def copied(name, durable):
    new, copy = prepared(name, "b"), WORK / "copy"
    put_away(copy)
    os.sync()
    began, used = time.perf_counter(), os.times()
    run("cp", "-a", new, copy)
    if durable:
        run("sync", "-f", copy)
    took, now = time.perf_counter() - began, os.times()
    put_away(copy)
    return took, sum(now[2:4]) - sum(used[2:4])


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{time.strftime('%F')}, {os.cpu_count()} cores, load {load}, fastest of {RUNS}\n")
    print("| pair | update, s | its CPU, s | `cp -a`, s | its CPU, s | `cp -a; sync -f`, s | ÷ cp | ÷ cp and sync |"
          " peak, KiB | bytes on the wire |")
    print("| --- |" + " ---: |" * 9)
    kinds = {}
    for name in NAMES:
        rows = [(update(name), copied(name, False), copied(name, True)) for _ in range(RUNS)]
        took, plain, synced = (min(of) for of in ([row[0][0] for row in rows], [row[1][0] for row in rows],
                                                  [row[2][0] for row in rows]))
        ours, theirs = min(row[0][4] for row in rows), min(row[1][1] for row in rows)
        peak, wire, kinds[name] = max(row[0][3] for row in rows), rows[0][0][1], rows[0][0][2]
        print(f"| {name} | {took:.2f} | {ours:.2f} | {plain:.2f} | {theirs:.2f} | {synced:.2f} | {took / plain:.2f} | {took / synced:.2f} |"
              f" {peak:,} | {wire:,} |", flush=True)
    for name, parts in kinds.items():
        print(f"\n{name}: " + ", ".join(f"{what} {size:,}" for what, size in sorted(parts.items())))
    subprocess.run(["chmod", "-R", "u+w", str(WORK / "aside")], check=False)
    shutil.rmtree(WORK / "aside")


main()
