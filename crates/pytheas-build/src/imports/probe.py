"""Imports what a start imports, in the app's own Python. Written by pytheas.

    probe.py OUT (module NAME | script FILE) FOLDER…

FOLDERs come first on `sys.path`. Of a script only its import statements are carried out: those of
its module level, also below `if`, `try` and `with`; not in functions, since nothing else of it runs.
Python tells the times (`-X importtime`); into OUT go: a line `begin` and `end` with the microseconds
between, the names that were there before, and for each module its name, file and byte code.
"""

import sys

out, kind, what, *folders = sys.argv[1:]
before = set(sys.modules)
sys.path[:1] = folders
sys.argv[:] = [what if kind == "script" else folders[0] if folders else what]


def statements(source):
    """The import statements of a script, each as code of its own, in order."""
    import ast

    def is_type_checking(test):
        return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"

    def collect(body, guarded):
        for node in body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = ast.Module([node], [])
                yield compile(module, what, "exec"), guarded
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                if isinstance(node, ast.If) and is_type_checking(node.test):
                    yield from collect(node.orelse, True)
                    continue
                for field in ("body", "orelse", "finalbody"):
                    # What is imported in case of an error is not imported without one.
                    yield from collect(getattr(node, field, []), True)

    return list(collect(ast.parse(source, what).body, False))


todo, failed = [], None
if kind == "script":
    with open(what, "rb") as file:
        todo = statements(file.read())
    before |= set(sys.modules)
print("pytheas: begin", file=sys.stderr, flush=True)
from time import perf_counter_ns  # built into the interpreter

begun = perf_counter_ns()
try:
    if kind == "module":
        __import__(what)
    names = {"__name__": "__main__", "__file__": what}
    for code, guarded in todo:
        try:
            exec(code, names)
        except ImportError:
            if not guarded:
                raise
except BaseException as error:
    failed = f"{type(error).__name__}: {error}"
spent = (perf_counter_ns() - begun) // 1000
lines = [f"spent\t{spent}"]
if failed is not None:
    lines.append("failed\t" + " ".join(failed.split()))
for name, module in list(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    if "\t" in name or "\n" in name or spec is None:
        continue
    origin = spec.origin if getattr(spec, "has_location", False) else ""
    had = "before" if name in before else "after"
    lines.append(f"{had}\t{name}\t{origin or ''}\t{getattr(spec, 'cached', None) or ''}")
with open(out, "w", encoding="utf-8", errors="surrogateescape") as file:
    file.write("\n".join(lines) + "\n")
# Threads that modules started, and what they registered for the end, belong to the app's own end.
import os

os._exit(0)
