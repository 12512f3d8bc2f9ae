#!/usr/bin/env python3
"""What an agent costs that has nothing to do: memory, processor, bytes for each poll.

    bench/agent_idle.py [MINUTES] [POLL...]      by default 5 minutes at `30s` and at `1s`

Starts a real hub, publishes a small release, lets the agent install it (its app sleeps), and then
watches: resident and private memory of the agent's process (its app is another one), nanoseconds its
threads ran (/proc/PID/task/*/schedstat) as a share of one core, and all bytes of payload that cross
the connection to the hub, both directions, headers included, through a relay in between. Bytes
without the TCP and IP headers. One row for each POLL interval; the first poll after the install is
waited for.

PYTHEAS (release build) and AGENT (`cargo xtask size` builds it) are the programs. Linux and Python's
standard library."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

PYTHEAS = os.environ.get("PYTHEAS", "target/release/pytheas")
AGENT = os.environ.get("AGENT", "target/x86_64-unknown-linux-gnu/agent/pytheas-agent")
MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 5
POLLS = sys.argv[2:] or ["30s", "1s"]


class Relay:
    """Passes bytes on to the hub and counts them; a request is counted where its line begins."""

    def __init__(self, hub):
        self.hub, self.bytes, self.requests, self.connections = hub, 0, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            here, _ = self.listener.accept()
            there = socket.create_connection(self.hub)
            self.connections += 1
            for one in (here, there):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in ((here, there, True), (there, here, False)):
                threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source, sink, is_request):
        try:
            while part := source.recv(1 << 16):
                self.bytes += len(part)
                if is_request:
                    self.requests += sum(part.count(verb) for verb in (b"GET /", b"POST /", b"PUT /"))
                sink.sendall(part)
        except OSError:
            pass
        for one in (source, sink):
            one.close()


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def wait(what, found, seconds=120):
    until = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > until:
            raise SystemExit(f"{what}: waited in vain")
        time.sleep(0.1)
    return value


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = lambda lines, name: sum(int(line.split()[1]) for line in lines if line.startswith(name))
    return {"resident": kib(lines, "VmRSS:"), "private": kib(rollup, "Private_"), "peak": kib(lines, "VmHWM:")}


def ran_ns(pid):
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def world(work):
    """A hub with one release, its address and token."""
    run(PYTHEAS, "keys", "init", "--keys", work / "keys")
    tree = work / "app"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/app").write_text("#!/bin/sh\nexec sleep 1000000\n")
    (tree / "bin/app").chmod(0o755)
    record = {"format": 1, "name": "idle", "version": "1.0.0", "form": "bundle", "platform": "linux-x86_64",
              "entry": "bin/app", "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 20000, "stay_up_ms": 100}}
    (tree / "pytheas.json").write_text(json.dumps(record))
    run(PYTHEAS, "publish", tree, "--repo", work / "hub/repo", "--keys", work / "keys")
    started = work / "started.json"
    log = open(work / "hub.log", "w")
    hub = subprocess.Popen([PYTHEAS, "hub", "--listen", "127.0.0.1:0", "--data", str(work / "hub"), "--root",
                            str(work / "keys/root.json"), "--online-keys", str(work / "keys/online"),
                            "--started-file", str(started)], stdout=log, stderr=log)
    wait("hub", started.exists)
    return hub, json.loads(started.read_text())


def api(hub, path, body=None):
    request = urllib.request.Request(f"{hub['address'].rstrip('/')}/api/v1/{path}",
                                     data=None if body is None else json.dumps(body).encode(),
                                     headers={"Authorization": f"Bearer {hub['token']}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def watch(work, hub, relay, key, poll):
    """A device that polls every `poll`, watched once it is at rest."""
    name = f"idle-{poll}"
    state = work / name
    log = open(work / f"{name}.log", "w")
    agent = subprocess.Popen([AGENT, "run", "--state", str(state), "--hub", relay.url, "--root", str(work / "keys/root.json"),
                              "--key", key, "--id", name, "--poll-interval", poll], stdout=log, stderr=log)
    try:
        wait("enrolment", lambda: any(device["id"] == name for device in api(hub, "devices")))
        time.sleep(1)
        api(hub, "rollouts", {"release": "idle@1.0.0", "devices": [name]})
        agent.send_signal(1)  # SIGHUP: poll now
        shown = lambda: json.loads(run(AGENT, "status", "--json", "--state", state))
        wait("install", lambda: (now := shown())["release"] and now["state"] == "idle" and not now["reports_waiting"])
        agent.send_signal(1)
        time.sleep(15)  # the last reports, and the attributes that follow an update
        before, bytes_before, requests_before = ran_ns(agent.pid), relay.bytes, relay.requests
        began, seen = time.monotonic(), []
        while time.monotonic() < began + MINUTES * 60:
            time.sleep(min(5, MINUTES * 6))
            seen.append(status(agent.pid))
        took = time.monotonic() - began
        ran, moved, requests = ran_ns(agent.pid) - before, relay.bytes - bytes_before, relay.requests - requests_before
    finally:
        agent.terminate()
        agent.wait()
    most = {kind: max(one[kind] for one in seen) for kind in seen[0]}
    each = f"{moved / requests:,.0f}" if requests else "–"
    print(f"| {poll} | {took:.0f} | {requests} | {each} | {ran / took / 1e7:.4f} | {most['resident']:,} | {most['private']:,} |"
          f" {most['peak']:,} |", flush=True)


def main():
    work = Path(tempfile.mkdtemp(prefix="pytheas-idle-"))
    hub = None
    try:
        hub, at = world(work)
        host, port = at["address"].split("//")[1].rstrip("/").rsplit(":", 1)
        relay = Relay((host, int(port)))
        key = api(at, "enrolment-keys", {"name": "idle"})["key"]
        print(f"{time.strftime('%F')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
              f" agent of {Path(AGENT).stat().st_size:,} bytes\n")
        print("| poll | watched, s | polls | bytes a poll | CPU, % of a core | resident, KiB | private, KiB | peak with the install, KiB |")
        print("| --- |" + " ---: |" * 7)
        for poll in POLLS:
            watch(work, at, relay, key, poll)
    finally:
        if hub:
            hub.terminate()
            hub.wait()
        shutil.rmtree(work, ignore_errors=True)


main()
