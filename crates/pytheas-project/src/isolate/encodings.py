"""The first module that a Python looks for, in place of the standard library's `encodings`: becomes
that one, and has `sitecustomize` beside it run before `site`, which would execute the lines of `.pth`
files that a package has put among what the build requires.
"""

import sys


def become():
    """The real package, under this name."""
    mine = __file__.rpartition("/encodings/")[0]
    finder = sys.modules["_frozen_importlib_external"].PathFinder
    spec = finder.find_spec("encodings", [path for path in sys.path if path != mine])
    module = sys.modules[__name__]
    module.__spec__, module.__loader__ = spec, spec.loader
    module.__file__, module.__path__ = spec.origin, spec.submodule_search_locations
    module.__cached__ = spec.cached
    spec.loader.exec_module(module)


class Before:
    """Runs `sitecustomize` when `site` is asked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "site":
            sys.meta_path.remove(Before)
            # As `site` would say of a virtual environment.
            folder = sys.executable.rpartition("/")[0]
            top = folder.rpartition("/")[0]
            for file in (folder + "/pyvenv.cfg", top + "/pyvenv.cfg"):
                try:
                    open(file).close()
                except OSError:
                    continue
                sys.prefix = sys.exec_prefix = top
                break
            import sitecustomize
        return None


become()
sys.meta_path.insert(0, Before)
