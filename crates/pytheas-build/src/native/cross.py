"""Makes the Python of a build environment answer as the target's would (see native/cross.rs).

Imported by a `.pth` file whenever that Python starts, child processes included. What it is told
lies beside it in `_pytheas_target.json`; the modules that it loads are still the host's.
"""
import json
import os
import sys


def _install():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "_pytheas_target.json"), encoding="utf-8") as file:
        target = json.load(file)
    os.environ["_PYTHON_HOST_PLATFORM"] = target["host_platform"]

    import sysconfig

    variables = sysconfig.get_config_vars()
    variables.update(target["variables"])
    # `sysconfig` may be asked again by a module that resets it.
    loaded = getattr(sysconfig, "_init_posix", None)
    if loaded is not None:

        def again(known):
            loaded(known)
            known.update(target["variables"])

        sysconfig._init_posix = again

    real = os.uname()
    uname = type(real)(
        ("Linux", real.nodename, "5.10.0", "#1 SMP", target["machine"])
    )
    os.uname = lambda: uname
    if hasattr(sys.implementation, "_multiarch"):
        sys.implementation._multiarch = target["multiarch"]
    if target["bits"] == 32:
        sys.maxsize = (1 << 31) - 1

    include = target["include"]
    paths = sysconfig.get_paths

    def get_paths(*arguments, **named):
        found = paths(*arguments, **named)
        for name in ("include", "platinclude"):
            if name in found:
                found[name] = include
        return found

    sysconfig.get_paths = get_paths
    path = sysconfig.get_path

    def get_path(name, *arguments, **named):
        if name in ("include", "platinclude"):
            return include
        return path(name, *arguments, **named)

    sysconfig.get_path = get_path


_install()
