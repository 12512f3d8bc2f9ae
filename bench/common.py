"""What the benchmarks share: one folder to work in, timed commands, sizes, a bare place to run in."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHEAS = os.path.realpath(os.environ.get("PYTHEAS", ROOT / "target/release/pytheas"))


def python() -> str:
    """The real path of the CPython that all tools build with (`PYTHON`, else python3.11)."""
    name = os.environ.get("PYTHON", "python3.11")
    out = subprocess.run(
        [name, "-c", "import os, sys; print(os.path.realpath(sys.executable))"],
        check=True, capture_output=True, text=True,
    ).stdout
    return out.strip()


def say(*what) -> None:
    print(*what, file=sys.stderr, flush=True)


def tool_environment(work: pathlib.Path, *, own_caches: bool) -> dict:
    """The environment of the tools; with caches of their own, or the machine's."""
    unwanted = ("PYTHEAS_REPO", "PYTHEAS_TOKEN", "PYTHEAS_KEYS", "PYTHONDONTWRITEBYTECODE",
                "VIRTUAL_ENV", "PYTHONPATH", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "UV_NO_PROGRESS": "1"}
    if own_caches:
        home = work / "home"
        home.mkdir(parents=True, exist_ok=True)
        env |= {
            "HOME": str(home),
            "PYTHEAS_CACHE_DIR": str(work / "cache/pytheas"),
            "UV_CACHE_DIR": str(work / "cache/uv"),
            "PIP_CACHE_DIR": str(work / "cache/pip"),
            "PEX_ROOT": str(work / "cache/pex"),
            "SHIV_ROOT": str(work / "cache/shiv"),
            "PYINSTALLER_CONFIG_DIR": str(work / "cache/pyinstaller"),
            "NUITKA_CACHE_DIR": str(work / "cache/nuitka"),
            "CCACHE_DIR": str(work / "cache/ccache"),
        }
    return env


class Failed(Exception):
    """A command that did not do what it should."""


class Spent(tuple):
    """Seconds of wall time and peak memory (kB) of the largest process; `cpu`: seconds of all processes."""

    cpu = 0.0


def children_cpu() -> float:
    """Seconds of CPU, user's and system's, of all children that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command, *, env, log, cwd=None, timeout=1800) -> Spent:
    """Runs a command into a log."""
    cpu = children_cpu()
    begun = time.perf_counter()
    with open(log, "ab") as out:
        child = subprocess.Popen([str(part) for part in command], env=env, cwd=cwd, stdout=out,
                                 stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = begun + timeout
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                break
            if time.perf_counter() > deadline:
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.005)
    elapsed = time.perf_counter() - begun
    if child.returncode != 0:
        tail = pathlib.Path(log).read_text(errors="replace")[-2500:]
        raise Failed(f"{' '.join(map(str, command[:4]))} … exit code {child.returncode}\n{tail}")
    spent = Spent((elapsed, usage.ru_maxrss))
    spent.cpu = children_cpu() - cpu
    return spent


def size(path) -> int:
    """The contents of a file, or of a folder with each file once; without block rounding."""
    path = pathlib.Path(path)
    if path.is_file():
        return path.stat().st_size
    seen = {}
    for folder, _, names in os.walk(path):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def remove(*paths) -> None:
    for path in map(pathlib.Path, paths):
        if path.is_dir() and not path.is_symlink():
            # Nuitka's caches and our trees have read-only folders.
            for folder, _, _ in os.walk(path):
                os.chmod(folder, 0o755)
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# The machine's Pythons and its home folder are out of sight (the artifacts lie elsewhere); PATH is
# emptied only for the program itself (BARE_PATH: an app that runs the system's programs).
HIDE = r"""
set -e
for d in /root /home /usr/local/lib/python3* /usr/lib/python3* /opt/python*; do
    if [ -d "$d" ]; then mount -t tmpfs none "$d"; fi
done
for f in /usr/bin/python3* /usr/local/bin/python3*; do
    if [ -e "$f" ]; then mount --bind /dev/null "$f"; fi
done
if python3 -c 'import os' 2>/dev/null; then echo 'a Python is still there' >&2; exit 99; fi
cd "$BARE_CWD"; unset BARE_CWD
program=$0
PATH=${BARE_PATH-} exec "$program" "$@"
"""


def can_hide() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
                              capture_output=True).returncode == 0
    except OSError:
        return False


class Bare:
    """Runs programs with an empty environment, no PATH and, where we may, no Python to be found."""

    def __init__(self, cwd: pathlib.Path):
        self.cwd = cwd
        self.hidden = can_hide()

    def _command(self, command, env):
        command = [str(part) for part in command]
        env = {name: str(value) for name, value in (env or {}).items()}
        if not self.hidden:
            return command, {"PATH": env.pop("BARE_PATH", "")} | env
        # `sh` and `mount` are found before PATH is emptied; the rest of the environment is passed.
        around = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BARE_CWD": str(self.cwd)}
        return ["unshare", "--mount", "sh", "-c", HIDE, *command], around | env

    def run(self, command, *, env=None, timeout=120, ok=(0,)) -> str:
        """Runs to the end; standard output and error together."""
        command, env = self._command(command, env)
        done = subprocess.run(command, env=env, cwd=self.cwd, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        text = done.stdout.decode(errors="replace")
        if done.returncode not in ok:
            raise Failed(f"exit code {done.returncode}: {text[-1500:]}")
        return text

    def start(self, command, log, *, env=None) -> "Server":
        command, env = self._command(command, env)
        with open(log, "wb") as out:
            child = subprocess.Popen(command, env=env, cwd=self.cwd, stdin=subprocess.DEVNULL,
                                     stdout=out, stderr=out, start_new_session=True)
        return Server(child, pathlib.Path(log))


class Server:
    """A running server; ended with all its children when left."""

    def __init__(self, child, log):
        self.child, self.log = child, log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, number)
            except ProcessLookupError:
                break
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self.child.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, what, seconds=60):
        """The first true answer of `what`; refused connections count as not yet."""
        deadline = time.monotonic() + seconds
        last = None
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failed(f"the server ended with {self.child.returncode}: {self.text()[-1500:]}")
            try:
                if answer := what():
                    return answer
            except (OSError, Failed) as error:
                last = error
            time.sleep(0.1)
        raise Failed(f"no answer in {seconds} s ({last}): {self.text()[-1500:]}")


def in_turns(commands: dict, runs: int, *, env=None, cwd="/", expect="", prepare=None, cpu=None) -> dict:
    """Milliseconds of each command, taken in turns; two turns to warm the page cache do not count.
    `prepare[name]` is called before each start of that name; `cpu[name]` gets milliseconds of CPU."""
    times = {name: [] for name in commands}
    for turn in range(runs + 2):
        for name, command in commands.items():
            if prepare and name in prepare:
                prepare[name]()
            before, begun = children_cpu(), time.perf_counter()
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                                  cwd=cwd, env=env, stdin=subprocess.DEVNULL)
            spent = (time.perf_counter() - begun) * 1000
            if done.returncode != 0 or expect not in done.stdout + done.stderr:
                raise Failed(f"{name}: exit code {done.returncode}: {done.stderr[-1500:]}")
            if turn >= 2:
                times[name].append(spent)
                if cpu is not None:
                    cpu.setdefault(name, []).append((children_cpu() - before) * 1000)
    return times


class Results:
    """Figures by key in one JSON file: a run that was cut goes on where it was."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.data = json.loads(self.path.read_text()) if self.path.exists() else {}

    def __getitem__(self, key):
        return self.data.get(key)

    def __setitem__(self, key, value):
        self.data[key] = value
        aside = self.path.with_suffix(".new")
        aside.write_text(json.dumps(self.data, indent=1, sort_keys=True))
        aside.replace(self.path)


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def machine() -> str:
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores of {model}, Linux {os.uname().release}, load {load()}"
