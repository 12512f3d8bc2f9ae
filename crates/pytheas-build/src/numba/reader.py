# Written by pytheas: numba finds here what was compiled when the bundle was built, and leaves the
# bundle as it is; `site` imports it.
#
# The cache lies beside this file, in a folder `_pytheas_numba` with the bundle's own folders below
# it, and holds code for any CPU that has FEATURES. What is not in it, numba compiles for this very
# machine and keeps in the user's cache, as always; where there is no place for that, it is kept in
# memory only instead of refusing to cache.
import os
import sys

FEATURES = "@FEATURES@"
HERE = os.path.dirname(os.path.realpath(__file__))
FOLDER = os.path.join(HERE, "_pytheas_numba")
ROOT = os.path.normpath(os.path.join(HERE, "@UP@"))
# The bundle is one piece: its sources are those that the cache was made from.
STAMP = "bundle"


def below(file):
    """The path of a file of the bundle, relative to it."""
    path = os.path.relpath(os.path.realpath(os.path.join(ROOT, file)), ROOT)
    return None if path == os.pardir or path.startswith(os.pardir + os.sep) else path


def has_features():
    """Whether this CPU can run what is in the cache."""
    wanted = [name[1:] for name in FEATURES.split(",") if name]
    if not wanted:
        return True
    from llvmlite import binding
    features = binding.get_host_cpu_features()
    return all(features.get(name) for name in wanted)


class Bundled:
    """The bundle's part of one function's cache."""

    def __init__(self, caching, cache, folder):
        import inspect
        self.cache = cache
        path = below(inspect.getfile(cache._py_func))
        self.file = path and caching.IndexDataCacheFile(
            os.path.join(folder, os.path.dirname(path)), cache._impl.filename_base, STAMP)

    def key(self, sig, codegen):
        """numba's key, with the CPU that all of the cache is for."""
        sig, target, *rest = self.cache._index_key(sig, codegen)
        return (sig, (target[0], "generic", FEATURES), *rest)


def locator(caching):
    """numba's place for a function of the bundle where nothing can be written."""
    class Nowhere(caching._CacheLocator):
        def __init__(self, py_func):
            self._lineno = py_func.__code__.co_firstlineno

        def ensure_cache_path(self):
            pass

        def get_cache_path(self):
            return FOLDER

        def get_source_stamp(self):
            return STAMP

        def get_disambiguator(self):
            return str(self._lineno)

        @classmethod
        def from_function(cls, py_func, py_file):
            return None if below(py_file) is None else cls(py_func)
    return Nowhere


def extend(caching):
    """Has `numba.core.caching` look into the bundle first, and never write into it."""
    load, save = caching.Cache._load_overload, caching.Cache._save_overload
    nowhere = locator(caching)
    usable = os.path.isdir(FOLDER) and has_features()

    def _load_overload(self, sig, target_context):
        if usable and self._enabled:
            try:
                bundled = Bundled(caching, self, FOLDER)
                data = bundled.file and bundled.file.load(bundled.key(sig, target_context.codegen()))
                if data is not None:
                    return self._impl.rebuild(target_context, data)
            except Exception:
                pass  # Compiled anew: slower, nothing else.
        return load(self, sig, target_context)

    def _save_overload(self, sig, data):
        if not isinstance(self._impl.locator, nowhere):
            save(self, sig, data)

    def outside(place):
        class Outside(place):
            @classmethod
            def from_function(cls, py_func, py_file):
                return super().from_function(py_func, py_file) if below(py_file) is None else None
        return Outside

    places = [outside(place) if "InTree" in place.__name__ else place
              for place in caching.CacheImpl._locator_classes]
    caching.CacheImpl._locator_classes = [*places, nowhere]
    caching.Cache._load_overload, caching.Cache._save_overload = _load_overload, _save_overload


class Loader:
    """numba's own loader of the module, and `extend` after it."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        try:
            extend(module)
        except AttributeError:
            pass  # A numba with other insides caches as it does.


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "numba.core.caching":
            return None
        from importlib.util import find_spec
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None:
            spec.loader = Loader(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
