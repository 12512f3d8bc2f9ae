//! numba's cache of a bundle: filled when it is built, read on a device that can write nothing, and
//! the same bytes again. numba is large, so this runs with `cargo xtask test --all`.

use std::process::Command;

use pytheas_build::Built;

use crate::support::{Workspace, built, environment, shown, skipped, stdout, try_build};

const PROJECT: &str = "[project]\nname = 'rates'\nversion = '1'\ndependencies = ['numba', 'numpy']\n\
                       [tool.pytheas]\nentry = 'main.py'\n\
                       [tool.pytheas.numba]\nwarm = ['kernels.fast:warm']\n";
const FAST: &str = r#"
import math
import numpy as np
from numba import njit, prange

@njit("f8(f8[:])", cache=True)
def eager(a):
    if a[0] < 0:
        raise ValueError("negative")
    return math.sqrt(a.sum())

@njit(cache=True)
def lazy(a):
    return a * 2

@njit(parallel=True, cache=True)
def spread(a):
    total = 0.0
    for i in prange(a.size):
        total += np.sqrt(a[i])
    return total

def warm():
    lazy(np.ones(3))
    spread(np.ones(3))
"#;
const MAIN: &str = r#"
import numpy as np
from kernels import fast
a = np.arange(9.0)
print(fast.eager(a), fast.lazy(a)[3], fast.spread(np.ones(5)))
for function in (fast.eager, fast.lazy, fast.spread):
    print(sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values()))
"#;

fn heavy() -> bool {
    let is_on = std::env::var_os("PYTHEAS_TEST_ALL").is_some();
    if !is_on {
        skipped("numba is large: this runs with `cargo xtask test --all`");
    }
    is_on
}

fn run(built: &Built) -> String {
    // No home, and nowhere to write a cache of its own.
    let program = built.dir.join("bin/rates");
    let output = Command::new(program)
        .env_clear()
        .env("HOME", "/dev/null")
        .output()
        .unwrap();
    stdout(&output)
}

#[test]
fn functions_that_numba_caches_are_compiled_when_the_bundle_is_built() {
    if !heavy() {
        return;
    }
    let workspace = Workspace::new(&[
        ("pyproject.toml", PROJECT),
        ("main.py", MAIN),
        ("kernels/__init__.py", ""),
        ("kernels/fast.py", FAST),
    ]);
    let mut request = workspace.request();
    let first = built(&request);
    assert_eq!(run(&first), "6.0 6.0 5.0\n1 0\n1 0\n1 0\n");
    let tree = first.tree_id;
    // Elsewhere, and compiled again.
    request.out = Some(workspace.root().join("another/place"));
    request.environment = environment().with("PYTHEAS_COMPILE_ANEW", "1");
    let again = built(&request);
    assert_eq!(again.tree_id, tree);
    assert_eq!(run(&again), "6.0 6.0 5.0\n1 0\n1 0\n1 0\n");

    workspace.write(
        "kernels/fast.py",
        &FAST.replace("np.ones(3)", "open('/x', 'w')"),
    );
    request.out = Some(workspace.out());
    let error = shown(&try_build(&request).unwrap_err());
    assert!(error.contains("`kernels.fast:warm`"), "{error}");
    assert!(error.contains("Read-only file system"), "{error}");
}

#[test]
fn warming_without_numba_is_refused() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            &PROJECT.replace("['numba', 'numpy']", "[]"),
        ),
        ("main.py", ""),
    ]);
    let error = shown(&try_build(&workspace.request()).unwrap_err());
    insta::assert_snapshot!(error, @"
    error: `warm` in `[tool.pytheas.numba]` is for numba, which the app does not have
      help: add `numba` to the dependencies, or remove the table
    ");
}
