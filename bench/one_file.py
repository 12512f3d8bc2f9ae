#!/usr/bin/env python3.11
"""Does a one-file bundle's later start cost more than the folder's? Called as
`bench/packaging.py one-file`; alone: `python3.11 bench/one_file.py --work DIR --runs 300`.

Two apps: `tiny` (one `print`, so the launcher is a large part) and `fast` (fastapi + uvicorn +
pydantic). Of each, in turns whose order is drawn anew:

- `folder`: the directory bundle;
- `one file`: the unpacked one-file bundle, started by the one file;
- `copy`: the directory bundle once more, in another place: what of a difference is only that two
  copies of the same files lie elsewhere on the disk and in memory;
- `again`: the directory bundle a second time: what the method itself cannot tell apart.

Of the paired differences to `folder` the median is told with its 95 % confidence interval, from
order statistics (binomial, free of any distribution): load comes and goes, pairs stand it. CPU time
(user and system) stands load better than the wall's.
"""

import argparse
import os
import pathlib
import random
import shutil
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
from common import Failed, Results, run, say

#: Of the issue: milliseconds that a later start may cost over the folder's.
LIMIT_MS = 5


def interval(values: list) -> tuple:
    """The 95 % confidence interval of the median, from order statistics."""
    ordered, count = sorted(values), len(values)
    probability, rank = 0.5 ** count, 0
    total = probability
    while total <= 0.025 and rank < count // 2:
        rank += 1
        probability *= (count - rank + 1) / rank
        total += probability
    low = max(rank - 1, 0)
    return ordered[low], ordered[count - 1 - low]


def once(command: list, env: dict, out: int) -> tuple:
    """Milliseconds from before the process is made to after it ended, and those of its CPU time."""
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], command, env, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1),
                                                                   (os.POSIX_SPAWN_DUP2, out, 2)])
    _, status, usage = os.wait4(pid, 0)
    spent = (time.perf_counter() - begun) * 1000
    if status != 0:
        raise Failed(f"{command[0]}: exit code {os.waitstatus_to_exitcode(status)}")
    return spent, (usage.ru_utime + usage.ru_stime) * 1000


def measure(commands: dict, runs: int, env: dict, seed: int) -> dict:
    """Milliseconds of each, in turns of drawn order; three turns before do not count."""
    order, names = random.Random(seed), list(commands)
    times = {name: [] for name in names}
    out = os.open(os.devnull, os.O_WRONLY)
    for turn in range(runs + 3):
        order.shuffle(names)
        for name in names:
            spent = once(commands[name], env, out)
            if turn >= 3:
                times[name].append(spent)
    os.close(out)
    return times


def figures(times: dict) -> dict:
    """What is told of the times: of each its own, and the pairs with `folder`; of wall and CPU time."""
    found = {}
    for name, both in times.items():
        found[name] = {"runs": len(both)}
        for at, kind in enumerate(("wall", "cpu")):
            spent, folder = ([pair[at] for pair in times[which]] for which in (name, "folder"))
            pairs = [a - b for a, b in zip(spent, folder)]
            low, high = interval(pairs)
            found[name][kind] = {"median": statistics.median(spent), "min": min(spent),
                                 "difference": statistics.median(pairs), "low": low, "high": high}
    return found


def build(work: pathlib.Path, app: str, sources: dict, env: dict) -> dict:
    """Builds an app as a folder and as one file; gives what is started."""
    place, out = work / "one-file" / app, work / "one-file" / "out"
    place.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    for name, text in sources.items():
        (place / name).write_text(text)
    folder, file, copy = out / app, out / f"{app}.run", out / f"{app}-copy"
    if not copy.exists():
        common.remove(folder, file)
        for made, *flags in ([folder], [file, "--one-file"]):
            run([common.PYTHEAS, "-q", "build", "-C", place, "-o", made, "--name", app, "--interpreter",
                 common.python(), *flags], env=env, log=work / "log")
        shutil.copytree(folder, copy, symlinks=True)
    program = f"bin/{app}"
    return {"folder": [str(folder / program)], "one file": [str(file)], "copy": [str(copy / program)],
            "again": [str(folder / program)]}


def bench(work: pathlib.Path, results: Results, apps: dict, runs: int) -> None:
    tools = common.tool_environment(work, own_caches=True)
    unpacked = work / "one-file" / "unpacked"
    env = {"HOME": tools["HOME"], "PATH": "/usr/bin:/bin", "PYTHEAS_UNPACK_DIR": str(unpacked)}
    for app, sources in apps.items():
        key = f"one-file {app}"
        if results[key]:
            continue
        commands = build(work, app, sources, tools)
        say(f"{app}: {runs} turns, load {common.load()}")
        results[key] = figures(measure(commands, runs, env, seed=runs))


def report(results: Results, apps) -> str:
    lines = ["### One file's later starts", "",
             "| app | started | time | median | fastest | median of the paired differences to the folder | 95 % interval | turns |",
             "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for app in apps:
        for name, both in (results[f"one-file {app}"] or {}).items():
            for kind in ("wall", "cpu"):
                one, difference, between = both[kind], "–", "–"
                if name != "folder":
                    difference = f"{one['difference']:+.2f} ms"
                    between = f"{one['low']:+.2f} … {one['high']:+.2f} ms"
                lines.append(f"| {app} | {name} | {kind} | {one['median']:.1f} ms | {one['min']:.1f} ms | {difference} | "
                             f"{between} | {both['runs']} |")
    for app in apps:
        for kind in ("wall", "cpu"):
            if both := (results[f"one-file {app}"] or {}).get("one file"):
                one = both[kind]
                word = "reached" if one["high"] <= LIMIT_MS else "**missed**" if one["low"] > LIMIT_MS else "**not decided**"
                lines.append(f"\n{app}, {kind} time: a later start of the one file within {LIMIT_MS} ms of the folder's: {word}.")
    return "\n".join(lines)


def main() -> None:
    import packaging
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=int, default=300)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results = Results(work / "results.json")
    bench(work, results, packaging.ONE_FILE_APPS, options.runs)
    print(report(results, packaging.ONE_FILE_APPS))
    print(f"\n{common.machine()}.")


if __name__ == "__main__":
    main()
