# Compiles Python files to byte code; run by the bundle's own interpreter, fed by bytecode.rs.
#
# Reads "<file>NUL<name in tracebacks>NUL" from standard input, as often as there are, and gives
# unchecked hash-based pycs (PEP 552): they hold no time, and starting the app never looks at the
# sources. Writes first the tag of its byte code's names, then for each file one byte, 1 for byte
# code and 0 for why there is none (sources for other Pythons are common in packages); each with
# its length (u32, little endian) before it.
#
# Few imports: the interpreter that is being prepared has no byte code of its own yet.
import _imp
import gc
import sys

sys.path[:] = [entry for entry in sys.path if entry]

import _frozen_importlib_external as external
import warnings

magic = int.from_bytes(external.MAGIC_NUMBER, "little")
gc.disable()
warnings.simplefilter("ignore")
# There is one string of each of these characters. Byte code tells whether it is interned, which
# would depend on the files that were compiled before.
characters = [sys.intern(chr(number)) for number in range(256)]
words = sys.stdin.read().split("\0")
out = sys.stdout.buffer


def put(start, data):
    out.write(start + len(data).to_bytes(4, "little") + data)


put(b"", sys.implementation.cache_tag.encode())
for path, name in zip(words[::2], words[1::2]):
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        put(b"\0", f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        continue
    put(b"\1", external._code_to_hash_pyc(code, _imp.source_hash(magic, source), checked=False))
out.flush()
