"""Runs a build back end's hook apart: every Python that uv starts reads this file before any code of
a package, also before the `.pth` files of what the build requires (`encodings.py` beside it sees to
that). It starts the same command again in namespaces of its own and hands back its
end. No network, an empty home, nothing writable but the build's own folders, no secrets in the
environment. Where the kernel has no namespaces for users: Landlock and seccomp.

Told by the environment: PYTHEAS_ISOLATE_NETWORK (names that may use the network, or *),
PYTHEAS_ISOLATE_NAME (what is built), PYTHEAS_ISOLATE_OWN (the only folder that this name is for), PYTHEAS_ISOLATE_WRITE (a folder for results),
PYTHEAS_ISOLATE_ROOMS (folders that it may write, with a colon between two), PYTHEAS_ISOLATE_SHOWN
(folders that it may read), PYTHEAS_ISOLATE_LOG (a file that gets a line when a hook begins and when it ends).
"""

import os
import sys

MASKED = ["/home", "/root", "/tmp", "/var/tmp", "/dev/shm", "/run", "/etc/pytheas",
          "/var/lib/pytheas", "/etc/ssh", "/etc/ssl/private"]
# What a home of one step (`/data`) may be without hiding the machine.
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/nonexistent", "/opt", "/proc", "/sbin",
          "/sys", "/usr", "/var")
SECRET_WORDS = ("TOKEN", "PASS", "_PWD", "SECRET", "CREDENTIAL", "APIKEY", "_KEY", "AUTH", "BEARER",
                "COOKIE", "_PAT_")
SECRET_STARTS = ("PYTHEAS_", "UV_", "PIP_", "TWINE_", "AWS_", "AZURE_", "GOOGLE_", "GCP_",
                 "GITHUB_", "GH_", "GITLAB_", "CI_", "DOCKER_", "KUBE", "SSH_", "GPG_", "DBUS_",
                 "XDG_", "NPM_", "CARGO_REGISTR", "HF_", "NETRC", "VAULT_", "SUDO_")
KEPT = ("UV_INTERNAL__BUILD_DIR",)

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 4096, 16384, 1 << 18, 2, 4
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, ATTR_RDONLY = 442, -100, 0x8000, 1
ATTR_NODEV = 4
# All devices there are for a build: root's could read the disk, and write it, too.
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]


def environment(network):
    """The environment without what a build has no business to know."""
    kept = {}
    for name, value in os.environ.items():
        shout = name.upper()
        if name not in KEPT and (shout.startswith(SECRET_STARTS)
                                 or any(word in shout + "_" for word in SECRET_WORDS)):
            continue
        before, at, _ = value.partition("@")
        if at and "://" in before and not (network and "PROXY" in shout):
            continue
        if name in ("PYTHONPATH", "TMPDIR", "TEMP", "TMP"):
            continue
        kept[name] = value
    return kept


def under(path, top):
    return path == top or path.startswith(top.rstrip("/") + "/")


def cache_of():
    """uv's cache: the folder that holds `builds-v0/.tmpX`."""
    builds = os.path.dirname(os.path.realpath(sys.prefix))
    return os.path.dirname(builds) if os.path.basename(builds).startswith("builds-") else None


def normalised(name):
    import re
    return re.sub("[-_.]+", "-", name).lower()


def name_of(cwd, cache):
    """The package that is built. What comes from an index is named by its place in uv's cache, not
    by what it says of itself."""
    import re
    if cache and under(cwd, cache):
        found = re.match(r"sdists-v\d+/(?:pypi|index/[^/]+)/([^/.][^/]*)/", cwd[len(cache) + 1:])
        if found:
            return normalised(found.group(1))
    own = os.environ.get("PYTHEAS_ISOLATE_OWN")
    if os.environ.get("PYTHEAS_ISOLATE_NAME") and (not own or os.path.realpath(own) == cwd):
        return normalised(os.environ["PYTHEAS_ISOLATE_NAME"])
    for file, pattern in (
        ("PKG-INFO", r"^Name:\s*([\w.-]+)"),
        ("pyproject.toml", r"""^name\s*=\s*["']([\w.-]+)"""),
        ("setup.cfg", r"^name\s*=\s*([\w.-]+)"),
        ("setup.py", r"""\bname\s*=\s*["']([\w.-]+)"""),
    ):
        try:
            with open(os.path.join(cwd, file), encoding="utf-8", errors="replace") as text:
                found = re.search(pattern, text.read(1 << 20), re.M)
        except OSError:
            continue
        if found:
            return normalised(found.group(1))
    return os.path.basename(cwd)


def told(variable):
    """The folders that a variable names."""
    return [os.path.realpath(path) for path in os.environ.get(variable, "").split(":") if path]


def folders(script, cwd, cache):
    """What the hook may write, and what else of masked places it has to read."""
    import re
    write = told("PYTHEAS_ISOLATE_ROOMS")
    allowed = [path for path in (cache, os.environ.get("PYTHEAS_ISOLATE_WRITE")) if path]
    for path in re.findall(r'"(/(?:[^"\\]|\\.)*)"', script):
        path = os.path.realpath(path)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        if any(under(path, os.path.realpath(top)) for top in allowed) and path != cache:
            write.append(path)
    read = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(sys.executable),
            os.path.dirname(os.path.realpath(sys.executable)), cwd]
    read += [path for path in sys.path if os.path.isdir(path)]
    home = os.path.expanduser("~")
    read += [os.path.join(home, ".cargo/bin"), os.path.join(home, ".rustup"),
             "/run/systemd/resolve", "/run/resolvconf"]
    read += told("PYTHEAS_ISOLATE_SHOWN")
    if cache:
        import glob
        read += glob.glob(os.path.join(cache, "archive-v*"))
    for path in os.environ.get("PATH", "").split(":"):
        if path.startswith("/"):
            read.append(path)
            parent = os.path.dirname(path.rstrip("/"))
            # A tool chain: its libraries lie beside its programs.
            if os.path.basename(path.rstrip("/")) == "bin" \
                    and parent not in (home, os.path.join(home, ".local")):
                read.append(parent)
    masks = masked(home)
    # The place itself, and never one that would uncover a masked folder.
    read = [path for path in read if os.path.isdir(path) and not any(
        under(mask, os.path.realpath(path)) for mask in masks)]
    return sorted(set(write)), sorted(set(read)), masks


def masked(home):
    masks = list(MASKED)
    import pwd
    homes = [home]
    try:
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        pass
    for path in homes:
        path = os.path.realpath(path)
        if path != "/" and path not in SYSTEM:
            masks.append(path)
    masks = sorted({os.path.realpath(path) for path in masks if os.path.isdir(path)})
    return [path for path in masks if not any(path != top and under(path, top) for top in masks)]


class Kernel:
    def __init__(self):
        import ctypes
        self.ctypes = ctypes
        self.libc = ctypes.CDLL(None, use_errno=True)

    def check(self, result, what):
        if result < 0:
            number = self.ctypes.get_errno()
            raise OSError(number, what + ": " + os.strerror(number))
        return result

    def mount(self, source, target, kind, flags, data=None):
        encode = lambda text: None if text is None else os.fsencode(text)
        self.check(self.libc.mount(encode(source), encode(target), encode(kind),
                                   self.ctypes.c_ulong(flags), encode(data)), "mount " + target)

    def attributes(self, path, set_, clear, recursive):
        value = (self.ctypes.c_uint64 * 4)(set_, clear, 0, 0)
        self.check(self.libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path),
                                     AT_RECURSIVE if recursive else 0, value, 32), "mount_setattr")

    def prctl(self, *arguments):
        return self.libc.prctl(*[self.ctypes.c_ulong(value) for value in arguments], *(
            [self.ctypes.c_ulong(0)] * (5 - len(arguments))))


def enter(kernel, network):
    """New namespaces, in which this user is itself and may mount."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC
    kernel.check(kernel.libc.unshare(flags | (0 if network else CLONE_NEWNET)), "unshare")
    for file, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)),
                       ("gid_map", "%d %d 1" % (gid, gid))):
        with open("/proc/self/" + file, "w") as out:
            out.write(text)


def furnish(kernel, cwd, write, read, masks, copied):
    """The file system as the hook sees it."""
    kernel.mount(None, "/", None, MS_REC | MS_PRIVATE)
    handles = {path: os.open(path, os.O_PATH) for path in set(write + read)}
    hidden = [path for path in (os.environ.get("NETRC"), os.environ.get("PIP_CONFIG_FILE"),
                                os.environ.get("UV_CONFIG_FILE")) if path and os.path.isfile(path)]
    for path in hidden:
        if path != "/dev/null":
            kernel.mount("/dev/null", path, None, MS_BIND)
    devices = [path for path in DEVICES if os.path.exists(path)]
    for path in devices:
        kernel.mount(path, path, None, MS_BIND)
    kernel.attributes("/", ATTR_RDONLY | ATTR_NODEV, 0, True)
    for path in devices + [path for path in hidden if path != "/dev/null"]:
        kernel.attributes(path, 0, ATTR_NODEV, False)
    for path in masks:
        kernel.mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700" if path not in (
            "/tmp", "/var/tmp", "/dev/shm", "/run") else "mode=1777")
    for path in sorted(handles):
        handle = "/proc/self/fd/%d" % handles[path]
        if any(under(path, mask) for mask in masks) or path in write:
            os.makedirs(path, exist_ok=True)
            kernel.mount(handle, path, None, MS_BIND | MS_REC)
            if path in write:
                try:
                    kernel.attributes(path, 0, ATTR_RDONLY, False)
                except PermissionError:
                    pass  # It was read-only before.
    if copied and is_of_others(cwd):
        # In an overlay they would stay theirs, and closed: here even root is nobody else.
        layer = "/tmp/.pytheas-source"
        copy_readable(cwd, layer)
        kernel.mount(layer, cwd, None, MS_BIND)
    elif copied:
        # A source folder of the user's: what the hook writes there is gone afterwards.
        layers = "/tmp/.pytheas-source"
        for name in ("over", "work"):
            os.makedirs(os.path.join(layers, name))
        quoted = cwd.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
        data = "lowerdir=%s,upperdir=%s/over,workdir=%s/work" % (quoted, layers, layers)
        try:
            # Without `userxattr` a new folder cannot be renamed (EXDEV), as Cargo does.
            kernel.mount("overlay", cwd, "overlay", 0, data + ",userxattr")
        except OSError:
            kernel.mount("overlay", cwd, "overlay", 0, data)
    home = os.path.expanduser("~")
    try:
        os.makedirs(home, exist_ok=True)
    except OSError:
        pass
    for handle in handles.values():
        os.close(handle)
    os.chdir("/")
    os.chdir(cwd)


def is_of_others(folder):
    """Whether the folder, or something right in it, belongs to another user: a project mounted into a
    container, or unpacked by root with its owners."""
    def other(path):
        try:
            return os.lstat(path).st_uid != os.getuid()
        except OSError:
            return False
    return other(folder) or any(other(os.path.join(folder, name)) for name in os.listdir(folder))


def copy_readable(folder, to):
    """Copies what may be read: `.env` of mode 600 is no part of a build."""
    import shutil

    def copy(source, target, **how):
        try:
            return shutil.copy2(source, target, **how)
        except PermissionError:
            return target
    try:
        shutil.copytree(folder, to, symlinks=True, copy_function=copy,
                        ignore=shutil.ignore_patterns(".venv", "node_modules", "__pycache__"))
    except shutil.Error as error:
        if any("Permission denied" not in str(why) for _, _, why in error.args[0]):
            raise


def give_up_privileges(kernel):
    for capability in range(64):
        kernel.prctl(24, capability)  # PR_CAPBSET_DROP
    kernel.check(kernel.prctl(38, 1), "no_new_privs")


def end(pid):
    """Kills a process, and what it has started where it has a session of its own."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, 9)
        except OSError:
            pass


def status_of(pid, parent=None):
    """Waits; ends `pid` when `parent` is no longer there to wait for us."""
    try:
        import select
        ended = select.poll()
        ended.register(os.pidfd_open(pid), select.POLLIN)
        while parent and not ended.poll(500):
            if os.getppid() != parent:
                end(pid)
                break
    except (AttributeError, ImportError, OSError):
        pass  # Linux 5.3 and Python 3.9 have it.
    while True:
        try:
            _, status = os.waitpid(pid, 0)
        except InterruptedError:
            continue
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def forbid_network(kernel):
    """seccomp: no socket but those between processes of this machine."""
    # Not `os.uname`, which a cross build replaces.
    import posix
    import struct
    numbers = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198),
               "armv7l": (0x40000028, 281), "riscv64": (0xC00000F3, 198)}
    arch, socket = numbers[posix.uname().machine]
    ctypes = kernel.ctypes
    instruction = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
    program = b"".join([
        instruction(0x20, 0, 0, 4), instruction(0x15, 1, 0, arch),
        instruction(0x06, 0, 0, 0x50000 | 1),
        instruction(0x20, 0, 0, 0),
        instruction(0x35, 5, 0, 0x40000000),  # x32
        instruction(0x15, 5, 0, 425),  # io_uring_setup: it would open sockets unseen
        instruction(0x15, 0, 2, socket),
        instruction(0x20, 0, 0, 16), instruction(0x15, 0, 2, 1),
        instruction(0x06, 0, 0, 0x7FFF0000),
        instruction(0x06, 0, 0, 0x50000 | 1),
        instruction(0x06, 0, 0, 0x50000 | 101),  # ENETUNREACH
    ])
    # The jumps above: x32 and io_uring end at EPERM, another family at ENETUNREACH.
    buffer = ctypes.create_string_buffer(program, len(program))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    filter_ = Program(len(program) // 8, ctypes.addressof(buffer))
    kernel.check(kernel.prctl(38, 1), "no_new_privs")
    kernel.check(kernel.libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(filter_), 0, 0), "seccomp")


def landlock(kernel, write, read, masks, home):
    """Landlock: reading outside the masked places, writing in the build's own folders."""
    import struct
    ctypes = kernel.ctypes
    abi = kernel.check(kernel.libc.syscall(444, None, ctypes.c_size_t(0), 1), "landlock")
    if abi < 2:
        raise OSError("moving files between folders needs a newer Landlock")
    reading, everything = 0b1101, (1 << 14) - 1
    attributes = struct.pack("Q", everything)
    ruleset = kernel.check(kernel.libc.syscall(444, attributes, ctypes.c_size_t(8), 0), "landlock")

    def allow(path, access):
        try:
            handle = os.open(path, os.O_PATH)
        except OSError:
            return
        if not os.path.isdir(path):
            access &= 0b111
        rule = struct.pack("=Qi", access, handle)
        kernel.check(kernel.libc.syscall(445, ruleset, 1, rule, 0), "landlock rule")
        os.close(handle)

    def outside(path):
        if path in masks or path == "/dev" or os.path.islink(path):
            return
        if any(under(mask, path) for mask in masks):
            try:
                children = os.listdir(path)
            except OSError:
                return
            for child in children:
                outside(os.path.join(path, child))
            return
        allow(path, reading)

    outside("/")
    for path in read:
        allow(path, reading)
    for path in write + [home]:
        allow(path, everything)
    for path in DEVICES + ["/dev/shm"]:
        allow(path, everything)
    kernel.check(kernel.prctl(38, 1), "no_new_privs")
    kernel.check(kernel.libc.syscall(446, ruleset, 0), "landlock")


def note(text):
    log = os.environ.get("PYTHEAS_ISOLATE_LOG")
    if log:
        with open(log, "a", encoding="utf-8", errors="replace") as out:
            out.write(text + "\n")


def say(text):
    try:
        os.write(2, ("pytheas: " + text + "\n").encode(errors="replace"))
    except OSError:
        pass  # Who listened was killed.


def hand_back(code, name, network, in_place):
    note("%s\t%s\tended" % (name, "network" if network else "-"))
    if code != 0:
        reach = "the network was allowed" if network else (
            "there was no network: if it needs one, allow it with "
            "`[tool.pytheas.build] network = [\"%s\"]` or `--allow-build-network`" % name)
        say("`%s` was built apart, with an empty home folder; %s" % (name, reach))
        if in_place and is_of_others(os.getcwd()):
            say("its folder, or something in it, belongs to another user, and it is to be built in place: "
                "do that as the owner, or make it yours with `chown -R`")
    os._exit(code)


def apart(arguments, script):
    cwd = os.path.realpath(os.getcwd())
    cache = cache_of()
    name = name_of(cwd, cache)
    names = os.environ.get("PYTHEAS_ISOLATE_NETWORK", "").split(",")
    network = "*" in names or name in [normalised(one) for one in names if one]
    write, read, masks = folders(script, cwd, cache)
    is_own = any(under(cwd, os.path.realpath(top)) for top in (
        cache, os.environ.get("PYTHEAS_ISOLATE_WRITE"), *told("PYTHEAS_ISOLATE_ROOMS")) if top)
    in_place = is_own or "build_editable" in script
    if in_place:
        write = sorted(set(write + [cwd]))
    clean = environment(network)
    kernel = Kernel()
    program = sys.executable
    log = lambda how: note("%s\t%s\t%s" % (name, "network" if network else "-", how))
    mode = os.environ.get("PYTHEAS_BUILD_ISOLATION", "")

    reader, writer = os.pipe()
    parent = os.getppid()
    outer = os.fork() if mode != "landlock" else -1
    if outer == 0:
        # The reader learns by the pipe's end whether the room was furnished.
        try:
            enter(kernel, network)
            init = os.fork()
            if init == 0:
                kernel.prctl(1, 9)  # PR_SET_PDEATHSIG: killed with its parent
                try:
                    kernel.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
                except OSError:
                    pass  # Another mount lies on it; processes outside stay closed to us.
                furnish(kernel, cwd, write, read, masks, not in_place)
                give_up_privileges(kernel)
                os.write(writer, b"y")
                os.close(writer)
                worker = os.fork()
                if worker == 0:
                    os.setsid()  # Away from the terminal: nothing can be typed into it.
                    os.execve(program, arguments, clean)
                os._exit(status_of(worker))
            os.close(writer)
            kernel.prctl(1, 9)
            os._exit(status_of(init))
        except BaseException as error:
            os.write(writer, ("n" + str(error)).encode(errors="replace"))
            os._exit(120)
    os.close(writer)
    answer = os.read(reader, 4096).decode(errors="replace") if outer > 0 else "n-"
    if answer.startswith("y"):
        log("namespaces")
        hand_back(status_of(outer, parent), name, network, in_place)
    if outer > 0:
        status_of(outer)

    # Opened now: Landlock closes its folder.
    log_file = os.open(os.environ["PYTHEAS_ISOLATE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT
                       | os.O_CLOEXEC, 0o600)
    import tempfile
    # Beside this file, so that it goes with us, whatever ends us.
    home = tempfile.mkdtemp(prefix="home-", dir=os.path.dirname(os.path.abspath(__file__)))
    worker = os.fork()
    if worker == 0:
        try:
            kernel.prctl(1, 9)
            how = []
            try:
                landlock(kernel, sorted(set(write + [cwd])), read, masks, home)
                how.append("landlock")
            except OSError:
                pass
            try:
                if not network:
                    forbid_network(kernel)
                how.append("seccomp")
            except (OSError, KeyError):
                pass
            if not how or (not network and "seccomp" not in how):
                say("`%s` executes code to be built, and this machine cannot isolate it: %s; "
                    "set `PYTHEAS_BUILD_ISOLATION=off` to build it all the same" % (name, answer[1:]))
                os._exit(121)
            line = "%s\t%s\t%s (no namespaces: %s)\n" % (
                name, "network" if network else "-", "+".join(how), answer[1:])
            os.write(log_file, line.encode(errors="replace"))
            clean.update(HOME=home, TMPDIR=home)
            give_up_privileges(kernel)
            os.setsid()
            os.execve(program, arguments, clean)
        except BaseException as error:
            say("`%s` cannot be isolated: %s" % (name, error))
        os._exit(121)
    try:
        code = status_of(worker, parent)
    except BaseException:
        end(worker)
        raise
    finally:
        import shutil
        shutil.rmtree(home, ignore_errors=True)
    hand_back(code, name, network, in_place)


def main():
    """Every Python but uv's own question for the interpreter's facts, which is no package's code
    (`-I`, so it does not even get here)."""
    if "PYTHEAS_ISOLATE_LOG" not in os.environ:
        return
    with open("/proc/self/cmdline", "rb") as file:
        arguments = [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
    try:
        script = arguments[arguments.index("-c") + 1] if "-c" in arguments else ""
        # What stands before is `build-backend`, which the package chooses: no path in it counts.
        script = script.rpartition(" as backend")[2]
        apart(arguments, script)
    except BaseException as error:
        say("the build cannot be isolated: %s: %s" % (type(error).__name__, error))
    finally:
        # Never on to the package's code, whatever went wrong.
        os._exit(121)


main()
