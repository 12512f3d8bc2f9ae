#!/usr/bin/env python3
"""What importing a library costs a board: bytes, RAM and instructions as .py, .mpy and ROMFS.

    bench/board_cost.py [NAME==VERSION:MODULE …]

Takes each library as PyPI has it, without the files that are no code of it (tests, stubs, metadata),
and brings it to the emulated board (Cortex-M3 under QEMU, LittleFS, two ROMFS partitions) in three
forms: its sources and its modules by mpy-cross as files, and the ROMFS image that `pytheas board deploy`
makes of it. Then the board is started anew for each, its clock counting instructions, and imports
MODULE: the figures do not depend on the machine's load. MemoryError stands where the import did not fit
into the board's heap (136 KB). Beside it, the image that mpremote makes of the same tree, in bytes.

Then Pytheas' own package for boards: bytes, the RAM it keeps, and what one signature costs.

PYTHEAS (default target/release/pytheas), PYTHEAS_MICROPYTHON (the rig, default
target/tools/micropython), pip. All else is Linux and Python's standard library."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHEAS = os.environ.get("PYTHEAS", ROOT / "target/release/pytheas")
RIG = Path(os.environ.get("PYTHEAS_MICROPYTHON", ROOT / "target/tools/micropython")).resolve()
LIBRARIES = sys.argv[1:] or [
    "microdot==2.7.0:microdot.microdot",
    "chumicro-mqtt==0.30.3:chumicro_mqtt.client",
    "chumicro-websockets==0.27.3:chumicro_websockets.server",
]
# An instruction is 8 ns of the board's clock then, so a microsecond is 125.
SHIFT, PER_US = 3, 125
ROM_BYTES = 4 << 20


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout}")
    return done.stdout


class Board:
    """The emulated board with this flash; its power is cut when the block ends."""

    def __init__(self, flash, counting=False):
        self.flash, self.counting = flash, counting

    def __enter__(self):
        with self.flash.open("ab") as file:
            file.truncate(16 << 20)
        memory = f"memory-backend-file,id=flash,size=16M,share=on,mem-path={self.flash}"
        command = ["qemu-system-arm", "-machine", "mps2-an385,memory-backend=flash", "-object", memory,
                   "-nographic", "-monitor", "null", "-semihosting", "-serial", "pty",
                   "-kernel", RIG / "qemu/firmware.elf"]
        command += ["-icount", f"shift={SHIFT}"] if self.counting else []
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = next(line for line in self.process.stdout if "/dev/pts" in line)
        self.port = next(word for word in line.split() if word.startswith("/dev/pts"))
        self.held = open(self.port, "r+b", buffering=0)
        return self

    def __exit__(self, *_):
        self.held.close()
        self.process.kill()
        self.process.wait()

    def mpremote(self, *command):
        return run(RIG / "bin/mpremote", "connect", self.port, "resume", *command)

    def measure(self, setup, code):
        """RAM that is kept and instructions, or the exception's name."""
        program = f"""
import gc, time
{setup}
gc.collect()
_a, _t = gc.mem_alloc(), time.ticks_us()
try:
    {code}
    _t = time.ticks_diff(time.ticks_us(), _t)
    gc.collect()
    print('KEPT', gc.mem_alloc() - _a, _t)
except MemoryError:
    print('KEPT MemoryError -')
"""
        said = self.mpremote("exec", program)
        kept, us = next(line for line in said.splitlines() if line.startswith("KEPT")).split()[1:]
        return (kept, "–") if us == "-" else (f"{int(kept):,}", f"{int(us) * PER_US / 1e6:.1f} M")


def fetched(requirement, to):
    run(sys.executable, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--no-deps",
        "--no-compile", "--target", to, requirement)
    for path in sorted(to.rglob("*"), reverse=True):
        if path.is_file() and (path.suffix != ".py" or ".dist-info" in str(path)):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return to


def compiled(tree, to, *options):
    for source in tree.rglob("*.py"):
        out = to / source.relative_to(tree).with_suffix(".mpy")
        out.parent.mkdir(parents=True, exist_ok=True)
        run(RIG / "bin/mpy-cross", *options, "-s", source.relative_to(tree), "-o", out, source)
    return to


def size(tree):
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def image_of(flash):
    """The image that was deployed into one of the two partitions."""
    content = flash.read_bytes()
    for start in (0, ROM_BYTES):
        part = content[start:start + ROM_BYTES]
        if part[:3] == b"\xd2\xcd\x31":
            at, length = 3, 0
            while True:
                length = length << 7 | part[at] & 0x7F
                at += 1
                if not part[at - 1] & 0x80:
                    return part[:at + length]
    sys.exit("no image was deployed")


def flash_with(image, to):
    """A flash with the image in the first partition: the firmware puts it at /rom, and into the path."""
    with to.open("wb") as file:
        file.write(image)
    return to


def library(folder, requirement, module):
    """Rows (form, bytes, RAM, instructions), and mpremote's bytes of the ROMFS."""
    sources = fetched(requirement, folder / "py")
    modules = compiled(sources, folder / "mpy")
    for form, tree in [(".py", sources), (".mpy", modules)]:
        flash = folder / f"flash{form}"
        with Board(flash) as board:
            board.mpremote("cp", "-r", *tree.iterdir(), ":")
        with Board(flash, counting=True) as board:
            yield form, size(tree), *board.measure("", f"import {module}")
    flash = folder / "flash.rom"
    with Board(flash) as board:
        run(PYTHEAS, "board", "deploy", sources, "--to", "rom", "--port", board.port, "--quiet",
            "--no-restart")
    run(RIG / "bin/mpremote", "romfs", "-o", folder / "theirs", "build", sources)
    for form, image in [("ROMFS", image_of(flash)), ("ROMFS by mpremote", (folder / "theirs").read_bytes())]:
        with Board(flash_with(image, folder / form), counting=True) as board:
            yield form, len(image), *board.measure("", f"import {module}")


def package(folder):
    """Ours: bytes of the modules, RAM of the part that stays, and one signature."""
    tree = folder / "pytheas"
    (tree / "pytheas").mkdir(parents=True)
    for source in (ROOT / "micropython/pytheas").glob("*.py"):
        if source.stem != "unix":
            shutil.copy(source, tree / "pytheas")
    modules = compiled(tree, folder / "mpy", "-O3")
    with Board(folder / "flash") as board:
        board.mpremote("cp", "-r", *modules.iterdir(), ":")
        # A boot record, as all boards have but new ones: without, the slots are searched.
        board.mpremote("exec", "import pytheas; pytheas.save({})")
    with Board(folder / "flash", counting=True) as board:
        ram, took = board.measure("", "import pytheas; pytheas.ready()")
    # RFC 8032, section 7.1, test 3.
    key = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    signature = ("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                 "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a")
    setup = f"from binascii import unhexlify as u\nk, m, s = u('{key}'), u('af82'), u('{signature}')"
    with Board(folder / "flash", counting=True) as board:
        kept, importing = board.measure(setup, "from pytheas import ed25519")
        setup += "\nfrom pytheas import ed25519"
        _, verifying = board.measure(setup, "assert ed25519.verify(k, m, s)")
    each = ", ".join(f"{path.stem} {path.stat().st_size:,}" for path in sorted(modules.rglob("*.mpy")))
    yield "all modules as .mpy, bytes", f"{size(modules):,} ({each})"
    for backend, other in ("ROMFS partitions", "file"), ("files", "rom"):
        length = size(modules) - (modules / f"pytheas/{other}.mpy").stat().st_size
        yield f"of it on a board with {backend}, bytes", f"{length:,}"
    yield "RAM kept by `import pytheas` with its backend, from .mpy in LittleFS", f"{ram} bytes, {took} instructions"
    yield "RAM kept by its `ed25519`, more", f"{kept} bytes, {importing} instructions"
    yield "one Ed25519 signature", f"{verifying} instructions"


with tempfile.TemporaryDirectory() as work:
    print("| library | form | bytes | RAM kept by the import | instructions |")
    print("| --- | --- | ---: | ---: | ---: |")
    for at, (requirement, module) in enumerate(spec.split(":") for spec in LIBRARIES):
        folder = Path(work) / str(at)
        folder.mkdir()
        for form, length, ram, instructions in library(folder, requirement, module):
            print(f"| {requirement.replace('==', ' ')}, `{module}` | {form} | {length:,} | {ram} "
                  f"| {instructions} |", flush=True)
    print("\n| the package for boards | |\n| --- | ---: |")
    for what, figure in package(Path(work) / "package"):
        print(f"| {what} | {figure} |")
