# Tells what a Python is, as JSON; run as `python -I -c`, by probe.rs.
import json
import os
import platform
import site
import sys
import sysconfig

version = "%d.%d.%d" % sys.version_info[:3]
if sys.version_info.releaselevel != "final":
    version += {"alpha": "a", "beta": "b", "candidate": "rc"}[sys.version_info.releaselevel] + str(sys.version_info.serial)
libc, libc_version = "", ""
try:
    libc, libc_version = os.confstr("CS_GNU_LIBC_VERSION").split()
except (ValueError, OSError, AttributeError):
    pass
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": version,
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "prefix": os.path.realpath(sys.base_prefix),
    "sys_prefix": sys.prefix,
    "stdlib": os.path.dirname(os.path.realpath(os.__file__)),
    "dynload": sysconfig.get_config_var("DESTSHARED") or "",
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "",
    "libdir": sysconfig.get_config_var("LIBDIR") or "",
    "include": sysconfig.get_path("include") or "",
    "site_packages": site.getsitepackages([sys.prefix]),
    "path": sys.path,
    "glibc": libc_version if libc == "glibc" else "",
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "markers": {
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": "",
        "platform_system": platform.system(),
        "platform_version": "",
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    },
}))
