#!/usr/bin/env bash
# Measures the main job against what people use today, and prints Markdown.
#
#   cargo build --release -p pytheas && bench/main-job.sh [RUNS] > result.md
#
# 1. build: a folder with main.py and three requirements, by `pytheas build` and by PyInstaller
#    (one-dir) from the package index, both cold (empty caches, downloads included) and warm (one
#    line of main.py changed);
# 2. start-up: RUNS starts (default 20) of each, taken in turns, and of the plain venv;
# 3. update: the bytes of greenhouse 1.0.0 -> 1.1.0 as a Pytheas delta, as the whole tree
#    compressed, and as `zstd --patch-from` of the two trees.
#
# Everything lies below one temporary folder; nothing of the user's caches and keys is touched.
# Needs: bash, CPython 3.11 with a shared libpython and venv, patch, tar, zstd, the package index.
# PYTHEAS names another binary, PYTHON another interpreter.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
pytheas=$(realpath "${PYTHEAS:-$root/target/release/pytheas}")
python=$("${PYTHON:-python3.11}" -c 'import os, sys; print(os.path.realpath(sys.executable))')
runs=${1:-20}
work=$(mktemp -d "${TMPDIR:-/tmp}/pytheas-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/home"
export HOME=$work/home PYTHEAS_CACHE_DIR=$work/cache/pytheas UV_CACHE_DIR=$work/cache/uv PIP_CACHE_DIR=$work/cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
unset PYTHONDONTWRITEBYTECODE PYTHEAS_REPO PYTHEAS_TOKEN PYTHEAS_KEYS XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME || true

say() { echo "$*" >&2; }
seconds() { # seconds NAME COMMAND...: keeps the wall time in $work/NAME.s
    local name=$1 start; shift
    start=$(date +%s.%N)
    "$@" >"$work/$name.log" 2>&1 || { cat "$work/$name.log" >&2; exit 1; }
    "$python" -c 'import sys; print(f"{float(sys.argv[2]) - float(sys.argv[1]):.1f}")' "$start" "$(date +%s.%N)" >"$work/$name.s"
    say "$name: $(cat "$work/$name.s") s, load $(cut -d' ' -f1-3 /proc/loadavg)"
}
bytes() { # the contents of a folder, each file once, without block rounding
    find "$1" -type f -printf '%D:%i %s\n' | sort -u | awk '{ sum += $2 } END { print sum }'
}

# 1. Build ---------------------------------------------------------------------------------------
app=$work/fast
mkdir "$app"
printf 'fastapi==0.115.0\nuvicorn==0.30.6\npydantic==2.9.2\n' >"$app/requirements.txt"
cat >"$app/main.py" <<'PY'
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


if __name__ == "__main__":
    print("ready", uvicorn.__version__, latest().value)
PY

ours() { "$pytheas" build -C "$app" -o "$work/ours" --name fast --interpreter "$python"; }
theirs() {
    [ -d "$work/venv" ] || {
        "$python" -m venv "$work/venv"
        "$work/venv/bin/pip" install -r "$app/requirements.txt" pyinstaller
    }
    (cd "$app" && "$work/venv/bin/pyinstaller" --noconfirm --onedir --name fast \
        --distpath "$work/theirs" --workpath "$work/pyi-work" --specpath "$work" "$app/main.py")
}
seconds ours-cold ours
seconds theirs-cold theirs
echo '# changed' >>"$app/main.py"
seconds ours-warm ours
seconds theirs-warm theirs
pyinstaller=$("$work/venv/bin/pyinstaller" --version)

# 2. Start-up ------------------------------------------------------------------------------------
"$python" -m venv "$work/plain"
"$work/plain/bin/pip" install -r "$app/requirements.txt"
say "start-up: $runs runs each"
"$python" - "$runs" >"$work/start" <<PY
import statistics, subprocess, sys, time
commands = [
    ["$work/ours/bin/fast"],
    ["$work/theirs/fast/fast"],
    ["$work/plain/bin/python", "$app/main.py"],
]
times = [[] for _ in commands]
for turn in range(int(sys.argv[1]) + 2):
    for command, kept in zip(commands, times):
        begun = time.perf_counter()
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
        assert out.startswith("ready"), out
        if turn >= 2:  # two to warm the page cache
            kept.append((time.perf_counter() - begun) * 1000)
for kept in times:
    print(f"{statistics.mean(kept):.0f} {statistics.stdev(kept):.0f} {min(kept):.0f}")
PY

# 3. Update --------------------------------------------------------------------------------------
green=$work/greenhouse
cp -r "$root/examples/greenhouse" "$green"
rm -rf "$green/dist" "$green/data" "$green/.venv"
"$pytheas" -q keys init --keys "$work/keys" >"$work/keys.log" 2>&1
publish() { "$pytheas" -q --json publish "$work/$1" --repo "$work/repo" --keys "$work/keys" >"$work/$1.json"; }
"$pytheas" -q build -C "$green" -t gateway --interpreter "$python" -o "$work/green-old" >"$work/green.log"
publish green-old
(cd "$green" && patch -s -p1 <releases/1.1.0.patch)
"$pytheas" -q build -C "$green" -t gateway --interpreter "$python" -o "$work/green-new" >>"$work/green.log"
publish green-new
for tree in old new; do
    tar -C "$work/green-$tree" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/$tree.tar" .
done
say "compressing the whole tree"
zstd -q -19 -f "$work/new.tar" -o "$work/new.tar.zst"
zstd -q -19 --long=27 -f --patch-from="$work/old.tar" "$work/new.tar" -o "$work/patch.zst" 2>>"$work/zstd.log"
delta=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["deltas"][0]["size_bytes"])' "$work/green-new.json")

# Report -----------------------------------------------------------------------------------------
"$python" - <<PY
import pathlib
work = pathlib.Path("$work")
second = lambda name: float((work / f"{name}.s").read_text())
start = [tuple(map(int, line.split())) for line in (work / "start").read_text().splitlines()]
MB = 1e6
rows = [
    ("build, cold (caches empty, downloads included)", second("ours-cold"), second("theirs-cold"), "PyInstaller", "s"),
    ("build, warm (one line changed)", second("ours-warm"), second("theirs-warm"), "PyInstaller", "s"),
    ("size of the folder", $(bytes "$work/ours") / MB, $(bytes "$work/theirs/fast") / MB, "PyInstaller", "MB"),
    ("start-up, mean", start[0][0], start[1][0], "PyInstaller", "ms"),
    ("start-up, mean", start[0][0], start[2][0], "venv", "ms"),
    ("start-up, fastest", start[0][2], start[1][2], "PyInstaller", "ms"),
    ("start-up, fastest", start[0][2], start[2][2], "venv", "ms"),
    ("greenhouse 1.0.0 to 1.1.0", $delta, $(stat -c %s "$work/new.tar.zst"), "whole tree, tar and zstd -19", "B"),
    ("greenhouse 1.0.0 to 1.1.0", $delta, $(stat -c %s "$work/patch.zst"), "zstd -19 --patch-from of the tars", "B"),
]
print("| what | Pytheas | other | which | ratio |\n| --- | ---: | ---: | --- | ---: |")
for what, ours, theirs, which, unit in rows:
    shown = (lambda x: f"{x:.1f} {unit}") if unit in ("s", "MB") else (lambda x: f"{x:,.0f} {unit}")
    print(f"| {what} | {shown(ours)} | {shown(theirs)} | {which} | {ours / theirs:.3g} |")
spread = ", ".join(f"{name} {mean} ± {dev} ms" for name, (mean, dev, _) in zip(("Pytheas", "PyInstaller", "venv"), start))
print(f"\nStart-up, mean and standard deviation of $runs runs taken in turns: {spread}.")
print("$(date -u +%F), $(nproc) cores of $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), load at the end $(cut -d' ' -f1-3 /proc/loadavg); "
      "$("$python" -V 2>&1), PyInstaller $pyinstaller, $(zstd --version | grep -o 'v[0-9.]*' | head -1 | sed 's/^/zstd /').")
PY
