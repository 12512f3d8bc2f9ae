# Written by pytheas: makes every Python of the bundle start and end fast; `site` imports it.
#
# 1. Modules that the bundle was built with are found in a table instead of in folders, and their
#    byte code is read unquestioned: it was made from these sources. Every other module, and every
#    module once `sys.path_hooks` is another, is left to Python's own finders.
# 2. While a module is imported, the garbage collector waits: what an import makes, stays.
# 3. At the end, what the imports left is not searched for garbage when nothing in it has anything
#    to do at its end (see `_leave`).
#
# PYTHEAS_PLAIN_START=1 switches all three off.
import gc
import marshal
import posix
import sys
from _collections import _count_elements
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader, PathFinder, SourceFileLoader
from _imp import _fix_co_filename, extension_suffixes
from _thread import allocate_lock

HELD = 200_000
_busy = allocate_lock()


def _run(code, names):
    exec(code, names)


if sys.version_info >= (3, 11):
    # Frames lie in chunks of 16 KiB, and a call that crosses an edge maps and unmaps one each time.
    # A frame that claims more than it needs gets a chunk of 1 MiB, whose rest serves the import.
    _run.__code__ = _run.__code__.replace(co_stacksize=65_000)


def _import(code, names):
    """Runs a module. Its garbage is collected later, at the latest after `HELD` objects."""
    if not _busy.acquire(False):
        return exec(code, names)
    try:
        first, *others = gc.get_threshold()
        if not first:
            return _run(code, names)
        gc.set_threshold(HELD, *others)
        try:
            _run(code, names)
        finally:
            now, *others = gc.get_threshold()
            # Otherwise the module set one, which holds.
            if now == HELD:
                if gc.get_count()[0] > first and not gc.get_freeze_count():
                    # Into the oldest generation, where it would have come to by collecting.
                    gc.freeze()
                    gc.unfreeze()
                gc.set_threshold(first, *others)
    finally:
        _busy.release()


class BundledLoader(SourceFileLoader):
    """Loads byte code that was written at build time."""

    _pytheas = ("", 0)

    def get_code(self, fullname):
        cached, size = self._pytheas
        try:
            file = posix.open(cached, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                data = posix.read(file, size + 1)
            finally:
                posix.close(file)
        except OSError:
            data = b""
        # Of another size it is not what was built; the ordinary loader knows what to do then.
        if len(data) != size:
            return super().get_code(fullname)
        code = marshal.loads(memoryview(data)[16:])
        _fix_co_filename(code, self.path)
        return code

    def exec_module(self, module):
        _import(self.get_code(module.__name__), module.__dict__)

    def __reduce__(self):
        return SourceFileLoader, (self.name, self.path)


class BundledFinder:
    """Finds the modules that the bundle was built with."""

    def __init__(self, suffix, folders):
        self.suffix = suffix
        self.folders = folders
        self.extensions = extension_suffixes()
        self.hooks = sys.path_hooks[:]

    def find_spec(self, fullname, path=None, target=None):
        if sys.path_hooks != self.hooks:
            return None
        tail = fullname.rpartition(".")[2]
        folders = self.folders
        for folder in sys.path if path is None else path:
            try:
                table = folders.get(folder)
            except TypeError:
                continue  # what cannot be hashed is no folder: Python passes over it as well
            if table is None:
                # Not of the bundle: has it a module of this name, Python finds it again.
                if PathFinder.find_spec(fullname, [folder]) is not None:
                    return None
                continue
            size = table.get(tail)
            if size is None:
                if tail in table:
                    return None
                continue
            if type(size) is str:
                if size[len(tail) :] not in self.extensions:
                    return None
                origin = f"{folder}/{size}"
                spec = ModuleSpec(fullname, ExtensionFileLoader(fullname, origin), origin=origin)
                spec._set_fileattr = True
                return spec
            if size < 0:
                size = -size
                home = [f"{folder}/{tail}"]
                origin = f"{folder}/{tail}/__init__.py"
                cached = f"{folder}/{tail}/__pycache__/__init__{self.suffix}"
            else:
                home = None
                origin = f"{folder}/{tail}.py"
                cached = f"{folder}/__pycache__/{tail}{self.suffix}"
            loader = BundledLoader(fullname, origin)
            loader._pytheas = cached, size
            spec = ModuleSpec(fullname, loader, origin=origin)
            spec._set_fileattr = True
            spec._cached = cached
            spec.submodule_search_locations = home
            return spec
        return None


# Extension modules outside the standard library whose objects only hold memory.
QUIET = {
    "_brotli", "_ruamel_yaml", "_yaml", "charset_normalizer", "frozenlist", "httptools",
    "jiter", "kiwisolver", "markupsafe", "msgpack", "msgspec", "multidict", "orjson", "propcache",
    "pydantic", "pydantic_core", "regex", "rpds", "simplejson", "tiktoken", "ujson", "wrapt", "yaml", "yarl",
}  # fmt: skip
# Of the standard library: those whose objects do something at their end, without a `__del__`.
BUSY = ("_sqlite3", "_dbm", "_gdbm", "_tkinter", "_xxsubinterpreters", "_interpreters")


def _leave():
    """Ends without searching all objects for garbage, when that can have no effect.

    Not when an object has a `__del__` (open files, sockets, suspended generators and so on have),
    when an extension module is loaded that is not known to be quiet, or someone watches.
    """
    objects = gc.get_objects()
    if len(objects) < 20_000 or gc.callbacks or sys.flags.dev_mode or sys.gettrace() or sys.getprofile():
        return
    modules = sys.modules
    for name in BUSY:
        if name in modules:
            return
    for name, module in modules.copy().items():
        file = getattr(module, "__file__", None)
        if file is not None and not file.endswith((".py", ".pyc")):
            if name.partition(".")[0] not in QUIET and not (isinstance(file, str) and "/lib-dynload/" in file):
                return
    counts = {}
    _count_elements(counts, map(type, objects))
    lasting = sum(count for kind, count in counts.items() if hasattr(kind, "__del__"))
    streams = {}
    for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__):
        buffer = getattr(stream, "buffer", None)
        for item in (stream, buffer, getattr(buffer, "raw", None)):
            if hasattr(type(item), "__del__"):
                streams[id(item)] = item
    if lasting > len(streams):
        return
    del objects
    gc.freeze()


def _install():
    if "PYTHEAS_PLAIN_START" in posix.environ or b"PYTHEAS_PLAIN_START" in posix.environ:
        return
    here = __file__.rpartition("/")[0]
    try:
        file = posix.open(here + "/_pytheas.index", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        suffix, below, folders = marshal.loads(posix.read(file, posix.fstat(file).st_size))
    finally:
        posix.close(file)
    if suffix != f".{sys.implementation.cache_tag}.pyc" or sys.flags.optimize or not here.endswith(below):
        return
    root = here[: -len(below)]
    finder = BundledFinder(suffix, {root + folder: table for folder, table in folders.items()})
    sys.meta_path.insert(sys.meta_path.index(PathFinder), finder)
    import atexit

    atexit.register(_leave)


_install()
