"""Keeps tests honest about what they test. Written by pytheas; Python's `site` imports it.

The artifact's modules are found in the artifact only, never in the project's sources beside the
tests. The test runner and what it needs are found last, and only by code that is not the
artifact's: what the artifact lacks stays missing for it, even if a test tool brings the same.
"""

import builtins
import os
import sys

import _frozen_importlib_external as _external

CONFIG = @CONFIG@
BOOT = CONFIG["boot"]
COPY = CONFIG["copy"]
ROOTS = tuple(root + os.sep for root in CONFIG["roots"])
# Packages bring plug-ins for pytest (anyio does); only pytest imports those.
RUNNERS = ("pytest", "_pytest")
MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external", "runpy", "pkgutil")
borrowed = set()


def _is_test(path):
    for part in path.split(os.sep):
        stem = part[:-3] if part.endswith(".py") else part
        if stem in ("test", "tests", "testing", "conftest") or stem.startswith("test_"):
            return True
        if stem.endswith(("_test", "_tests")):
            return True
    return False


def _importer(depth):
    """The file of the code that imports; none for the machinery alone, or code without a file."""
    frame = sys._getframe(depth)
    while frame is not None:
        top = (frame.f_globals.get("__name__") or "").partition(".")[0]
        is_ours = top == "sitecustomize" and frame.f_code.co_name in ("guarded", "import_module")
        if top not in MACHINERY and not is_ours:
            return frame.f_globals.get("__file__")
        frame = frame.f_back
    return None


def _is_ours(file):
    return isinstance(file, str) and file.startswith(ROOTS)


def _refuse(name):
    """The artifact does not have what a test tool brought, even when that is imported already."""
    if name.partition(".")[0] in RUNNERS:
        return
    parent = name
    while parent not in borrowed:
        parent, _, last = parent.rpartition(".")
        if not parent:
            return
    raise ModuleNotFoundError("No module named %r" % parent, name=parent)


class Packaged:
    """The artifact's copy of a module before the project's sources."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or _is_test(name):
            return None
        others = []
        for entry in sys.path:
            full = os.path.abspath(entry) if isinstance(entry, str) else ""
            if full != COPY and not full.startswith(COPY + os.sep) or _is_test(full[len(COPY):]):
                others.append(entry)
        if len(others) == len(sys.path):
            return None
        spec = _external.PathFinder.find_spec(name, others)
        return spec if spec is not None and spec.loader is not None else None


class Borrowed:
    """What only tests may import."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in RUNNERS and _is_ours(_importer(2)):
            return None
        folder, _, last = name.rpartition(".")
        roots = CONFIG["borrow"]
        if folder and _is_test(name.replace(".", os.sep)):
            # Tests that lie in the app's package but are not packaged with it.
            roots = [COPY, COPY + "/src", *roots]
        places = [os.path.join(root, *folder.split(".")) if folder else root for root in roots]
        spec = _external.PathFinder.find_spec(name, places)
        if spec is not None:
            borrowed.add(name)
        return spec

    @staticmethod
    def find_distributions(context=None):
        if _is_ours(_importer(2)):
            return iter(())
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        name = getattr(context, "name", None)
        wanted = DistributionFinder.Context(name=name, path=list(CONFIG["packages"]))
        return MetadataPathFinder.find_distributions(wanted)


def _install():
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != BOOT]
    sys.path[:0] = CONFIG["path"]
    at = next((i for i, f in enumerate(sys.meta_path) if f is _external.PathFinder), len(sys.meta_path))
    sys.meta_path.insert(at, Packaged)
    sys.meta_path.append(Borrowed)
    real = builtins.__import__

    def guarded(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and globals is not None and _is_ours(globals.get("__file__")):
            _refuse(name)
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = guarded
    import importlib

    real_module = importlib.import_module

    def import_module(name, package=None):
        if not name.startswith(".") and _is_ours(_importer(2)):
            _refuse(name)
        return real_module(name, package)

    importlib.import_module = import_module


# Another Python that a test starts is not ours to change.
if os.path.realpath(sys.prefix) in CONFIG["prefixes"]:
    _install()
