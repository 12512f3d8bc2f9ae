#!/usr/bin/env python3.11
"""Builds published applications by name, runs each for real somewhere else, and compares with
PyInstaller; prints a Markdown table.

    bench/apps.py [--only NAME,…] [--forms default,slim,pyinstaller] [--work DIR] [--runs 5]

Each application is built by `pytheas build --from REQUIREMENT` with nothing but its name and, where
its package has several programs, its entry point: as it is, and with `--slim`; and by PyInstaller
(one-dir, the same entry point, no hooks, `--collect-all` or hidden imports named). The result is moved to a folder
of another name and does real work there (a request served, a site built, a message delivered), with
an empty environment, no PATH, and the machine's Pythons out of sight. Start-up is the mean of RUNS
starts with `--version` or `--help`, in turns.

Results are kept in DIR/results.json; what is there is not done again. PYTHEAS names another binary,
PYTHON another interpreter.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
from app_list import APPS as FIRST
from app_list_more import MORE
from app_list_third import THIRD
from common import Bare, Failed, Results, remove, run, say, size

APPS = FIRST + MORE + THIRD
FORMS = ("default", "slim", "pyinstaller")


def entry_of(python, app) -> str:
    """The entry point, as PyInstaller needs it too: given, or that of the program of this name."""
    if "entry" in app:
        return app["entry"]
    code = ("import importlib.metadata as m, sys\n"
            "e = [e for e in m.distribution(sys.argv[1]).entry_points if e.group == 'console_scripts']\n"
            "n = [x for x in e if x.name.replace('_', '-') == sys.argv[1]] or e\n"
            "print(n[0].value)")
    out = subprocess.run([python, "-c", code, app["package"]], check=True, capture_output=True, text=True)
    return out.stdout.strip().split(" ")[0]


def uv(env) -> str:
    caches = pathlib.Path(env.get("PYTHEAS_CACHE_DIR", os.path.expanduser("~/.cache/pytheas")))
    found = sorted(caches.glob("tools/uv-*/uv"))
    return shutil.which("uv") or str(found[-1])


def build(app, form, work, env, python) -> tuple[pathlib.Path, pathlib.Path, float, list]:
    """Builds one application in one form: folder, program, seconds, warnings."""
    name = app["package"]
    place = work / name / form
    remove(place)
    place.mkdir(parents=True)
    log = place / "build.log"
    requirement = f"{app.get('extra', name)}=={app['version']}"
    if form != "pyinstaller":
        command = [common.PYTHEAS, "build", "--from", requirement, "--interpreter", python,
                   "-C", place, "-o", place / "out"]
        for other in app.get("with", ()):
            command += ["--with", other]
        if "entry" in app:
            command += ["--entry", app["entry"]]
        if form == "slim":
            command += ["--slim"]
        seconds, _ = run(command, env=env, log=log)
        warnings = [line for line in log.read_text().splitlines() if line.startswith("warning")]
        folder = place / "out"
        program = pathlib.Path("bin") / name
    else:
        venv = place / "venv"
        run([uv(env), "venv", "-q", "--seed", "--python", python, venv], env=env, log=log)
        run([uv(env), "pip", "install", "-q", "--python", venv / "bin/python", requirement,
             *app.get("with", ()), "pyinstaller==6.16.0"], env=env, log=log)
        entry = entry_of(venv / "bin/python", app)
        script = place / "start.py"
        module, _, callable_ = entry.partition(":")
        script.write_text(
            f"import sys\nimport {module}\nif __name__ == '__main__':\n"
            f"    sys.exit({module}.{callable_}())\n" if callable_ else
            f"import runpy\nimport {module}\nif __name__ == '__main__':\n    runpy.run_module('{module}', run_name='__main__')\n")
        seconds, _ = run([venv / "bin/pyinstaller", "--noconfirm", "--onedir", "--name", name,
                          "--distpath", place / "dist", "--workpath", place / "work",
                          "--specpath", place, script], env=env, log=log)
        remove(venv, place / "work")
        warnings = []
        folder = place / "dist" / name
        program = pathlib.Path(name)
    moved = place / "moved élsewhere"
    folder.rename(moved)
    return moved, moved / program, seconds, warnings


def smoke(app, program, work) -> None:
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="smoke-", dir=work))
    try:
        app["smoke"](Bare(scratch), program, scratch)
    finally:
        remove(scratch)


def one(app, forms, work, results, env, python, runs, keep, redo) -> None:
    name = app["package"]
    programs = {}
    for form in forms:
        key = f"{name} {form}"
        if results[key] and not redo and not (runs and "start" not in results[key]):
            continue
        figures = {"requirement": f"{app.get('extra', name)}=={app['version']}", "kind": app["kind"]}
        try:
            folder, program, seconds, warnings = build(app, form, work, env, python)
            figures |= {"built": True, "seconds": round(seconds, 1), "size": size(folder), "warnings": len(warnings)}
            smoke(app, program, work / name)
            figures["works"] = True
            programs[key] = [program, *app.get("quick", ["--version"])]
        except Exception as error:  # the table says which do not work
            figures["error"] = str(error) if isinstance(error, Failed) else traceback.format_exc()
        results[key] = figures
        say(f"{key}: {'works' if figures.get('works') else 'FAILS'}, {figures.get('size', 0) / 1e6:.1f} MB, "
            f"{figures.get('seconds', 0)} s")
        if "error" in figures:
            say("   ", figures["error"].replace("\n", "\n    ")[-1800:])
    if runs and programs:
        try:
            for key, times in common.in_turns(programs, runs, env={"PATH": "", "HOME": str(work)}).items():
                results[key] = results[key] | {"start": round(statistics.mean(times)), "start_min": round(min(times))}
        except Failed as error:
            say(f"{name}: start-up not measured: {error}")
    if not keep:
        remove(work / name)


def table(results) -> str:
    rows = ["| app | kind | default | slim | PyInstaller | slim ÷ PyInstaller | start: default | slim | PyInstaller |",
            "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |"]
    works = {form: 0 for form in FORMS}
    count = 0
    for app in APPS:
        found = {form: results[f"{app['package']} {form}"] for form in FORMS}
        if not any(found.values()):
            continue
        count += 1

        def cell(form):
            figures = found[form]
            if not figures:
                return "–"
            if not figures.get("built"):
                return "not built"
            works[form] += bool(figures.get("works"))
            return f"{'works' if figures.get('works') else '**fails**'}, {figures['size'] / 1e6:.1f} MB"

        def start(form):
            figures = found[form] or {}
            return f"{figures['start']} ms" if "start" in figures else "–"

        ours, theirs = found["slim"] or {}, found["pyinstaller"] or {}
        ratio = f"{ours['size'] / theirs['size']:.2f}" if "size" in ours and "size" in theirs else "–"
        extra = "".join(f" + {other}" for other in app.get("with", ()))
        rows.append(f"| {app.get('extra', app['package'])} {app['version']}{extra} | {app['kind']} | {cell('default')} | "
                    f"{cell('slim')} | {cell('pyinstaller')} | {ratio} | {start('default')} | {start('slim')} | {start('pyinstaller')} |")
    total = ", ".join(f"{form} {works[form]}" for form in FORMS)
    return "\n".join(rows) + f"\n\nOf {count} applications work: {total}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="packages, with commas")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the results in DIR")
    parser.add_argument("--redo", action="store_true", help="do again what is in DIR/results.json")
    parser.add_argument("--report", action="store_true", help="print the table of DIR/results.json only")
    options = parser.parse_args()
    work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="pytheas-apps-"))
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results = Results(work / "results.json")
    if not options.report:
        env = common.tool_environment(work, own_caches=False)
        python = common.python()
        wanted = options.only.split(",") if options.only else None
        for app in APPS:
            if wanted is None or app["package"] in wanted:
                one(app, options.forms.split(","), work, results, env, python, options.runs, options.keep, options.redo)
    print(table(results))
    hidden = "the machine's Pythons hidden" if common.can_hide() else "the machine's Pythons visible"
    print(f"\n{common.machine()}; {hidden}. `bench/apps.py`.")
    if not options.work:
        remove(work)


if __name__ == "__main__":
    main()
