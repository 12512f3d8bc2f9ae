//! Compiled code for other machines, made on this one without a toolchain for them: a package that
//! is only published as C source, and modules of an app, run under qemu-user.

use std::path::Path;

use pytheas_build::{Built, InterpreterChoice};
use pytheas_project::Connectivity;
use pytheas_release::Platform;

use crate::{
    platforms::{emulated, has_debian},
    support::{Workspace, built, environment, shown, skipped, stdout, try_build},
};

const SPI: &str =
    "import platform, spidev\nprint(platform.machine(), spidev.SpiDev.__name__, spidev.__file__)\n";
const GPIO: &str = "import importlib.util as u\nprint(u.find_spec('RPi._GPIO').origin)\n";

fn for_platform(workspace: &Workspace, platform: &str) -> Built {
    let mut request = workspace.request();
    request.platform = Some(platform.parse::<Platform>().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    built(&request)
}

/// Whether a Python 3.11 is here, as Debian's is and as builds need.
fn can_compile() -> bool {
    if !has_debian() {
        return false;
    }
    let found = environment()
        .search_path()
        .iter()
        .any(|dir| dir.join("python3.11").is_file());
    if !found {
        skipped("there is no `python3.11`, which runs the builds");
    }
    found
}

/// The files below `dir` whose names end with `end`.
fn ending(dir: &Path, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = child.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path.strip_prefix(dir).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[track_caller]
fn drivers_run_on(platform: &str, cpu: &str, machine: &str) {
    if !can_compile() {
        return;
    }
    let workspace = Workspace::new(&[
        ("main.py", &format!("{SPI}{GPIO}")),
        ("requirements.txt", "spidev==3.8\nrpi-gpio==0.7.1\n"),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11,<3.12\"\ndependencies = [\"spidev==3.8\", \"rpi-gpio==0.7.1\"]\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ]);
    let built = for_platform(&workspace, platform);
    let site = built
        .interpreter
        .site_packages
        .under(&built.dir.join("python"));
    let wheel = std::fs::read_to_string(site.join("spidev-3.8.dist-info/WHEEL")).unwrap();
    let tag = format!("Tag: cp311-cp311-manylinux_2_17_{machine}");
    assert!(wheel.lines().any(|line| line == tag), "{wheel}");
    let module = std::fs::read(site.join(&ending(&site, ".so")[0])).unwrap();
    let paths = String::from_utf8_lossy(&module).contains("native/.new-");
    assert!(!paths, "the module names the folder it was built in");

    let app = built.dir.join("bin/gate");
    let Some(mut command) = emulated(cpu, &[app.as_os_str()]) else {
        return;
    };
    let text = stdout(&command.output().unwrap());
    assert!(text.starts_with(&format!("{machine} SpiDev /")), "{text}");
    assert!(text.contains("/RPi/_GPIO.cpython-311-"), "{text}");
}

#[test]
fn packages_of_c_source_run_on_64_bit_arm() {
    drivers_run_on("linux-aarch64", "aarch64", "aarch64");
}

#[test]
fn packages_of_c_source_run_on_32_bit_arm() {
    drivers_run_on("linux-armv7", "arm", "armv7l");
}

#[test]
fn a_package_that_needs_a_librarys_headers_is_refused_by_name() {
    if !can_compile() {
        return;
    }
    let workspace = Workspace::new(&[
        ("main.py", "import cffi\n"),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11,<3.12\"\ndependencies = [\"cffi==1.17.1\"]\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ]);
    let mut request = workspace.request();
    request.platform = Some("linux-armv7".parse().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    let text = shown(&try_build(&request).unwrap_err());
    assert!(
        text.starts_with("error: `cffi` 1.17.1 has no wheel for `linux-armv7`, and its source needs the header `ffi.h`"),
        "{text}"
    );
    assert!(text.contains("(of libffi)"), "{text}");
}

fn app(with: &str) -> Workspace {
    let settings = format!(
        "[project]\nname = \"hot\"\nversion = \"1\"\nrequires-python = \">=3.11,<3.12\"\n[tool.pytheas]\nentry = \"plant.main:run\"\n[tool.pytheas.compile]\nmodules = [\"plant.loop\", \"plant.deep.*\"]\nwith = \"{with}\"\n"
    );
    Workspace::new(&[
        ("pyproject.toml", &settings),
        ("plant/__init__.py", ""),
        ("plant/deep/__init__.py", ""),
        (
            "plant/deep/more.py",
            "def add(a: int, b: int) -> int:\n    return a + b\n",
        ),
        (
            "plant/loop.py",
            "from .deep.more import add\n\n\ndef total(n: int) -> int:\n    s = 0\n    for i in range(n):\n        s = add(s, i)\n    return s\n",
        ),
        (
            "plant/main.py",
            "def run():\n    import platform\n    from . import loop\n    from .deep import more\n    print(platform.machine(), loop.total(1000), loop.__file__[-3:], more.__file__[-3:])\n",
        ),
    ])
}

#[track_caller]
fn compiled_modules_run(with: &str, platform: &str, cpu: &str, machine: &str) {
    if !can_compile() {
        return;
    }
    let workspace = app(with);
    let built = for_platform(&workspace, platform);
    let folder = built.dir.join("app/plant");
    assert!(folder.join("main.py").is_file());
    assert!(!folder.join("loop.py").exists() && !folder.join("deep/more.py").exists());
    assert_eq!(ending(&folder, "loop.cpython-311.pyc"), [""; 0]);
    let program = built.dir.join("bin/hot");
    let Some(mut command) = emulated(cpu, &[program.as_os_str()]) else {
        return;
    };
    let text = stdout(&command.output().unwrap());
    assert_eq!(text, format!("{machine} 499500 .so .so\n"));
}

#[test]
fn modules_compiled_by_cython_run_on_64_bit_arm() {
    compiled_modules_run("cython", "linux-aarch64", "aarch64", "aarch64");
}

#[test]
fn modules_compiled_by_mypyc_run_on_32_bit_arm() {
    compiled_modules_run("mypyc", "linux-armv7", "arm", "armv7l");
}

#[test]
fn what_the_compiler_says_names_file_and_line() {
    if !can_compile() {
        return;
    }
    let workspace = app("mypyc");
    workspace.write(
        "plant/loop.py",
        "def total(n: int) -> int:\n    return str(n)\n",
    );
    let mut request = workspace.request();
    request.connectivity = Connectivity::Online;
    let text = shown(&try_build(&request).unwrap_err());
    assert!(
        text.contains("mypyc cannot compile the app's modules"),
        "{text}"
    );
    assert!(
        text.contains("plant/loop.py:2: error: Incompatible return value type"),
        "{text}"
    );
}

#[test]
fn a_module_that_is_not_there_is_named_with_one_that_is() {
    let workspace = app("cython");
    let settings = "[project]\nname = \"hot\"\nversion = \"1\"\nrequires-python = \">=3.11,<3.12\"\n[tool.pytheas]\nentry = \"plant.main:run\"\n[tool.pytheas.compile]\nmodules = [\"plant.lop\"]\n";
    workspace.write("pyproject.toml", settings);
    insta::assert_snapshot!(shown(&try_build(&workspace.request()).unwrap_err()), @"
    error: `modules` in `[tool.pytheas.compile]` names `plant.lop`, which is no module of the app
      help: did you mean `plant.loop`?
    ");
}

/// A package of its own C code whose `setup.py` tries the network and says in a module how it fared.
fn own_package() -> Workspace {
    Workspace::new(&[
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools>=70\"]\nbuild-backend = \"setuptools.build_meta\"\n[project]\nname = \"sense\"\nversion = \"1.2\"\nrequires-python = \">=3.11,<3.12\"\n[tool.setuptools]\npackages = [\"sense\"]\n[tool.pytheas]\nentry = \"sense:main\"\n",
        ),
        (
            "setup.py",
            "import os, socket\ntry:\n    socket.create_connection((\"127.0.0.1\", int(open(\"port\").read())), 5).close()\n    said = \"reached\"\nexcept OSError:\n    said = \"cut off\"\nsaid += f\", {os.path.exists(os.path.expanduser('~/.cache'))}\"\nopen(\"sense/net.py\", \"w\").write(f\"said = {said!r}\\n\")\nfrom setuptools import Extension, setup\nsetup(ext_modules=[Extension(\"sense._fast\", [\"sense/fast.c\"])])\n",
        ),
        (
            "sense/__init__.py",
            "def main():\n    import platform\n    from . import _fast, net\n    print(platform.machine(), _fast.twice(21), net.said)\n",
        ),
        (
            "sense/fast.c",
            "#include <Python.h>\nstatic PyObject *twice(PyObject *self, PyObject *a) { return PyLong_FromLong(PyLong_AsLong(a) * 2); }\nstatic PyMethodDef methods[] = {{\"twice\", twice, METH_O, \"\"}, {0}};\nstatic struct PyModuleDef def = {PyModuleDef_HEAD_INIT, \"_fast\", 0, -1, methods};\nPyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&def); }\n",
        ),
    ])
}

#[test]
fn c_code_of_the_app_itself_is_compiled_for_another_cpu_without_the_network() {
    if !can_compile() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    listener.set_nonblocking(true).unwrap();
    let workspace = own_package();
    workspace.write("port", &port);
    let built = for_platform(&workspace, "linux-aarch64");
    assert!(listener.accept().is_err(), "the build reached the network");
    let site = built
        .interpreter
        .site_packages
        .under(&built.dir.join("python"));
    let net = std::fs::read_to_string(site.join("sense/net.py")).unwrap();
    assert_eq!(net, "said = 'cut off, False'\n");
    let modules = ending(&site.join("sense"), ".so");
    assert_eq!(modules, ["_fast.cpython-311-aarch64-linux-gnu.so"]);
    let app = built.dir.join("bin/sense");
    let Some(mut command) = emulated("aarch64", &[app.as_os_str()]) else {
        return;
    };
    let text = stdout(&command.output().unwrap());
    assert_eq!(text, "aarch64 42 cut off, False\n");
}

#[test]
fn a_wheel_for_a_named_platform_says_so_in_its_name_and_tag() {
    if !can_compile() {
        return;
    }
    let workspace = own_package();
    // As a manifest says it: it is not in a source distribution otherwise.
    workspace.write("port", "1");
    workspace.write("MANIFEST.in", "include port\ninclude sense/*.c\n");
    let mut request = workspace.request();
    request.platform = Some("linux-aarch64".parse().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    request.out = Some(workspace.root().join("wheels"));
    let made = pytheas_build::distributions(&request, &|_| {}).unwrap();
    assert!(
        made.wheel
            .ends_with("sense-1.2-cp311-cp311-manylinux_2_17_aarch64.whl"),
        "{:?}",
        made.wheel
    );
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&made.wheel).unwrap()).unwrap();
    let mut text = String::new();
    let mut entry = archive.by_name("sense-1.2.dist-info/WHEEL").unwrap();
    std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
    assert!(
        text.contains("Tag: cp311-cp311-manylinux_2_17_aarch64\n"),
        "{text}"
    );
}

#[test]
fn without_the_network_and_with_an_empty_cache_it_says_what_to_do() {
    if !can_compile() {
        return;
    }
    let workspace = own_package();
    workspace.write("port", "1");
    let cache = workspace.root().join("cache");
    let mut request = workspace.request();
    request.platform = Some("linux-x86_64".parse().unwrap());
    request.connectivity = Connectivity::Offline;
    // No compiler of this machine's is found either.
    let path = workspace.root().join("path");
    std::fs::create_dir(&path).unwrap();
    let uv = pytheas_project::Uv::find(&request.environment, Connectivity::Online, &|_| {});
    let dirs = request.environment.search_path();
    let python = dirs.iter().map(|dir| dir.join("python3.11"));
    let python = python.into_iter().find(|path| path.is_file()).unwrap();
    std::os::unix::fs::symlink(python, path.join("python3.11")).unwrap();
    request.environment = request
        .environment
        .with("PATH", path)
        .with("PYTHEAS_UV", uv.unwrap().path)
        .with("UV_CACHE_DIR", cache.join("uv"))
        .with("PYTHEAS_CACHE_DIR", &cache);
    let text = shown(&try_build(&request).unwrap_err());
    assert!(
        text.starts_with(
            "error: what compiling needs is not in the cache, and the network is not to be used\n"
        ),
        "{text}"
    );
}
