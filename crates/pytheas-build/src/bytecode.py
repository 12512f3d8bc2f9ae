# Compiles Python files to byte code; run by the bundle's own interpreter, fed by bytecode.rs.
#
# Reads "<file>NUL<name in tracebacks>NUL" from standard input, as often as there are, writes unchecked hash-based
# pycs (PEP 552): they hold no time, and starting the app never looks at the sources. Writes one
# line per file that does not compile (sources for other Pythons are common in packages).
import os
import sys

sys.path[:] = [entry for entry in sys.path if entry]

import importlib._bootstrap_external as external
import importlib.util
import warnings

warnings.simplefilter("ignore")
words = sys.stdin.read().split("\0")
for path, name in zip(words[::2], words[1::2]):
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        print(f"{name}\t{type(error).__name__}: {error}")
        continue
    target = importlib.util.cache_from_source(path, optimization="")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(external._code_to_hash_pyc(code, importlib.util.source_hash(source), checked=False))
