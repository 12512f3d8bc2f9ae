# Run by pytheas in a bundle's root: imports the app's modules that ask numba for caching, calls what
# the project names, and keeps what numba compiled. argv: a JSON object with `packages`, `paths`,
# `out`, `features`, `modules`, `warm`.
import faulthandler
import importlib
import itertools
import json
import os
import site
import sys
import traceback
from importlib.machinery import PathFinder, SourceFileLoader

request = json.loads(sys.argv[1])
root, out = os.getcwd(), request["out"]
for name in [name for name in os.environ if name.startswith("NUMBA_")]:
    del os.environ[name]
os.environ.update(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=request["features"],
                  PYTHEAS_PLAIN_START="1")
sys.argv[:] = ["numba"]
sys.path[:0] = request["paths"]
site.addsitedir(request["packages"])


class Relative(SourceFileLoader):
    """Names a module's code by its path in the bundle: numba writes that into what it compiles."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return compile(self.get_data(path), os.path.relpath(path, root), "exec", dont_inherit=True)


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        top = name.partition(".")[0]
        if top in ("numba", "llvmlite", "numpy") or not spec.origin.startswith(root + os.sep):
            return None
        with open(spec.origin, "rb") as file:
            if b"numba" not in file.read():
                return None
        spec.loader = Relative(name, spec.origin)
        return spec


import _pytheas_numba  # noqa: E402
from numba.core import caching  # noqa: E402

sys.meta_path.insert(0, Finder)
numbers = itertools.count(1)
# numba names what it makes of array expressions, parallel loops and stencils by their addresses in
# memory, and writes these names into what it keeps. The names only have to differ.
for module, builtin in (("numba.np.ufunc.array_exprs", "hash"), ("numba.parfors.parfor_lowering", "hash"),
                        ("numba.stencils.stencil", "id")):
    try:
        setattr(importlib.import_module(module), builtin, lambda _: next(numbers))
    except ImportError:
        pass
kept = 0
# Before `extend` they were numba's; the first is this, the last was our place without one.
caching.CacheImpl._locator_classes = caching.CacheImpl._locator_classes[::-1]


def plain(data):
    """Without the text for `inspect_types`: it names addresses in memory and this machine's files."""
    if not isinstance(data, tuple):
        return data
    return tuple("" if isinstance(part, str) and "# File:" in part else part for part in data)


def _save_overload(self, sig, data):
    global kept
    if not self._enabled or not self._impl.check_cachable(data):
        return
    bundled = _pytheas_numba.Bundled(caching, self, out)
    if bundled.file:
        os.makedirs(bundled.file._cache_path, exist_ok=True)
        bundled.file.save(bundled.key(sig, data.codegen), plain(self._impl.reduce(data)))
        kept += 1


def last_line():
    return traceback.format_exc().strip().splitlines()[-1]


caching.Cache._save_overload = _save_overload
# Code that does not end by itself must not hold the build for ever.
failed = []
for name in request["modules"]:
    faulthandler.dump_traceback_later(600, exit=True)
    try:
        importlib.import_module(name)
    except BaseException:
        failed.append([name, last_line()])
error = None
for name in request["warm"]:
    faulthandler.dump_traceback_later(600, exit=True)
    try:
        module, _, path = name.partition(":")
        call = importlib.import_module(module)
        for part in path.split("."):
            call = getattr(call, part)
        call()
    except BaseException:
        error = [name, traceback.format_exc()]
        break
faulthandler.cancel_dump_traceback_later()
with open(os.path.join(out, "answer.json"), "w", encoding="utf-8") as file:
    json.dump({"kept": kept, "failed": failed, "error": error}, file)
sys.stdout.flush()
sys.stderr.flush()
# Threads that a module started do not matter.
os._exit(0)
