#!/usr/bin/env python3
"""What a deploy costs: ours, mpremote's and mpytool's, on the same emulated board, in turns.

    bench/boards.py TREE       TREE: a folder of .py sources, such as microdot's `src`

Starts the rig's board (Cortex-M3 under QEMU, LittleFS, two ROMFS partitions) with blank flash for
each tool and run, deploys the whole tree, then the same tree again, then the tree with one changed
file, and prints a Markdown table of seconds: fastest of RUNS, and the ratio to ours. The clock runs
from the start of the command to its end; ours ends when the board has begun to restart. The
pseudo-terminal is held open, because QEMU looks only once a second whether somebody opened it.

PYTHEAS (release build), PYTHEAS_MICROPYTHON (the rig, default target/tools/micropython) and, when it
is on PATH or in MPYTOOL, mpytool. All else is Linux and Python's standard library."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHEAS = os.environ.get("PYTHEAS", "target/release/pytheas")
RIG = Path(os.environ.get("PYTHEAS_MICROPYTHON", "target/tools/micropython"))
MPREMOTE = RIG / "bin" / "mpremote"
MPYTOOL = os.environ.get("MPYTOOL") or shutil.which("mpytool")
RUNS = int(os.environ.get("RUNS", "3"))
TREE = Path(sys.argv[1]).resolve()


class Board:
    """The emulated board; its power is cut when the block ends."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        flash = Path(self.folder.name) / "flash"
        with flash.open("wb") as file:
            file.truncate(16 << 20)
        memory = f"memory-backend-file,id=flash,size=16M,share=on,mem-path={flash}"
        self.process = subprocess.Popen(
            ["qemu-system-arm", "-machine", "mps2-an385,memory-backend=flash", "-object", memory,
             "-nographic", "-monitor", "null", "-semihosting", "-serial", "pty",
             "-kernel", RIG / "qemu/firmware.elf"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = next(line for line in self.process.stdout if "/dev/pts" in line)
        self.port = next(word for word in line.split() if word.startswith("/dev/pts"))
        self.held = open(self.port, "r+b", buffering=0)
        return self

    def __exit__(self, *_):
        self.held.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def timed(command):
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout}")
    return time.monotonic() - start


def ours(*options):
    return lambda port, tree: [PYTHEAS, "board", "deploy", tree, "--port", port, "--quiet", *options]


def mpremote(port, tree):
    return [MPREMOTE, "connect", port, "cp", "-r", *tree.iterdir(), ":"]


def mpremote_rom(port, tree):
    return [MPREMOTE, "connect", port, "romfs", "deploy", tree]


def mpytool(port, tree):
    return [MPYTOOL, "-p", port, "cp", "--mpy", *tree.iterdir(), ":/"]


TOOLS = {"pytheas, ROMFS": ours("--to", "rom"), "pytheas, files": ours("--to", "files"), "mpremote cp -r": mpremote,
         "mpremote romfs deploy": mpremote_rom}
if MPYTOOL:
    TOOLS["mpytool cp --mpy"] = mpytool


def once(command):
    """Seconds of the whole tree, the same again, and with one changed file."""
    with tempfile.TemporaryDirectory() as folder, Board() as board:
        tree = Path(folder) / "tree"
        shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("*.pyi", "py.typed", "*.egg-info"))
        whole, again = (timed(command(board.port, tree)) for _ in range(2))
        changed = max(tree.rglob("*.py"), key=lambda path: (path.stat().st_size < 4000, str(path)))
        changed.write_text(changed.read_text() + "\nCHANGED = 1\n")
        return whole, again, timed(command(board.port, tree))


best = {}
for _ in range(RUNS):
    for name, command in TOOLS.items():
        now = once(command)
        best[name] = tuple(map(min, now, best.get(name, now)))

print(f"| {TREE.name} to the emulated board | whole tree, s | unchanged, s | one file changed, s |")
print("| --- | ---: | ---: | ---: |")
first = next(iter(best.values()))
for name, times in best.items():
    cells = [f"{time:.2f} ({time / own:.1f}x)" for time, own in zip(times, first)]
    print(f"| {name} | {' | '.join(cells)} |")
