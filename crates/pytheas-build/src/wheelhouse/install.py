"""Makes a virtual environment of the wheels beside this file: offline, without pip, whole or not.

Usage: python3 install.py ROOT VENV. Each wheel must have the hash in ROOT/requirements.txt. Files
are placed as PEP 427 says. Written by pytheas.
"""

import sys

try:
    import base64
    import compileall
    import configparser
    import csv
    import fcntl
    import hashlib
    import io
    import os
    import re
    import shutil
    import sysconfig
    import venv
    import zipfile
    import zlib  # noqa: F401: `zipfile` notices only when it reads
except ImportError as missing:
    print("pytheas: this Python, `%s`, is not whole: %s" % (sys.executable, missing), file=sys.stderr)
    print("  help: install all of its standard library (on Debian `python3` and `python3-venv` instead "
          "of `python3-minimal`), or name another with PYTHEAS_PYTHON", file=sys.stderr)
    sys.exit(127)

SCRIPT = """import sys
sys.argv[0] = sys.argv[0].removesuffix(".exe") if hasattr(str, "removesuffix") else sys.argv[0]
sys.exit(__import__("{module}", fromlist=["{first}"]).{call}())
"""


# Where a wheel may put files (PEP 427): not into the library of the Python itself.
SCHEMES = ("purelib", "platlib", "data")


class Refused(Exception):
    pass


def locked(root):
    hashes = {}
    with open(os.path.join(root, "requirements.txt"), encoding="utf-8") as lines:
        for line in lines:
            match = re.fullmatch(r"(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})", line.strip())
            if match is None:
                raise Refused("requirements.txt is damaged")
            hashes[match[3]] = "%s %s" % (match[1], match[2])
    return hashes


def place(path, base, content, executable):
    target = os.path.normpath(os.path.join(base, path))
    if os.path.isabs(path) or not target.startswith(base + os.sep):
        raise Refused("`%s` leads out of the environment" % path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(content)
    os.chmod(target, 0o755 if executable else 0o644)
    return target


def first_line(python):
    """The kernel takes neither blanks nor long paths in `#!`; a shell and Python read these lines alike."""
    if any(c.isspace() for c in python) or len(os.fsencode(python)) > 120:
        return "#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % re.sub(r'([\\"$`])', r"\\\1", python)
    return "#!%s\n" % python


def unpack(name, data, paths, python):
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = [info for info in archive.infolist() if not info.is_dir()]
    info_dir = next((n.filename.split("/")[0] for n in names
                     if re.fullmatch(r"[^/]+\.dist-info/WHEEL", n.filename)), None)
    if info_dir is None:
        raise Refused("%s is no wheel" % name)
    wheel = archive.read(info_dir + "/WHEEL").decode()
    pure = re.search(r"(?mi)^Root-Is-Purelib:\s*true", wheel) is not None
    site = paths["purelib" if pure else "platlib"]
    record = []

    def put(path, base, content, executable):
        target = place(path, base, content, executable)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append((os.path.relpath(target, site), "sha256=" + digest, len(content)))

    for info in names:
        path, content = info.filename, archive.read(info)
        executable = bool(info.external_attr >> 16 & 0o111)
        top = path.split("/")[0]
        if path == info_dir + "/RECORD":
            continue
        if not top.endswith(".data"):
            put(path, site, content, executable)
            continue
        _, scheme, rest = path.split("/", 2)
        if scheme == "scripts":
            if content.startswith((b"#!python\n", b"#!python\r", b"#!pythonw")):
                content = os.fsencode(first_line(python)) + content.split(b"\n", 1)[1]
            put(rest, paths["scripts"], content, True)
        elif scheme == "headers":
            put(rest, os.path.join(paths["include"], name.split("-")[0]), content, executable)
        elif scheme in SCHEMES:
            put(rest, paths[scheme], content, executable)
        else:
            raise Refused("%s has files for `%s`, which is no place" % (name, scheme))
    entries = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    entries.optionxform = str
    if info_dir + "/entry_points.txt" in archive.namelist():
        entries.read_string(archive.read(info_dir + "/entry_points.txt").decode())
    for group in ("console_scripts", "gui_scripts"):
        for script, value in entries.items(group) if entries.has_section(group) else ():
            module, _, call = value.split("[")[0].strip().partition(":")
            text = SCRIPT.format(module=module.strip(), first=call.strip().split(".")[0], call=call.strip())
            put(script, paths["scripts"], os.fsencode(first_line(python) + text), True)
    put(info_dir + "/INSTALLER", site, b"pytheas\n", False)
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows(record + [(info_dir + "/RECORD", "", "")])
    place(info_dir + "/RECORD", site, rows.getvalue().encode(), False)


def make(root, target):
    hashes = locked(root)
    shutil.rmtree(target, ignore_errors=True)
    # `python3` may be another minor version one day: the environment is of this one.
    sys._base_executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    venv.EnvBuilder(with_pip=False, symlinks=True).create(target)
    python = os.path.join(target, "bin", "python")
    variables = {"base": target, "platbase": target,
                 "installed_base": sys.base_prefix, "installed_platbase": sys.base_exec_prefix}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
    paths = sysconfig.get_paths(scheme, vars=variables)
    paths["include"] = os.path.join(target, "include")
    paths = {key: os.path.normpath(value) for key, value in paths.items()}
    folder = os.path.join(root, "wheels")
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        if hashes.pop(hashlib.sha256(data).hexdigest(), None) is None:
            raise Refused("%s is not the wheel that was built" % name)
        unpack(name, data, paths, python)
    if hashes:
        raise Refused("the wheel of %s is missing" % ", ".join(sorted(hashes.values())))
    compileall.compile_dir(paths["purelib"], quiet=2)
    os.sync()  # content before the mark, whatever happens to the power
    with open(os.path.join(target, "complete"), "w") as mark:
        os.fsync(mark.fileno())


def main():
    root, target = map(os.path.abspath, sys.argv[1:3])
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isfile(os.path.join(target, "complete")):
                try:
                    make(root, target)
                except BaseException:
                    shutil.rmtree(target, ignore_errors=True)
                    raise
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, Refused, zipfile.BadZipFile) as error:
        print("pytheas: cannot make the environment `%s`: %s" % (target, error), file=sys.stderr)
        print("  help: PYTHEAS_DATA_DIR chooses another folder for it; "
              "damaged wheels must be installed again", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    os.umask(0o022)
    main()
