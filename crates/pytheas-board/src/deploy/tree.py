# The board's side of a deploy of files (tree.rs); needs files.py.
def _tq(w, m, l):
    # Which of the files are there: their hashes; what was deployed before; what waits in w.
    try:
        with open(m) as f:
            for x in f:
                print("o", x, end="")
    except OSError:
        pass
    try:
        for x in os.listdir(w):
            print("w", x)
    except OSError:
        pass
    for p, n in l:
        try:
            print("h", _ph(p) if os.stat(p)[6] == n else "-")
        except OSError:
            print("h", "-")
        if p.endswith(".mpy"):
            try:
                os.stat(p[:-3] + "py")
                print("s", p[:-3] + "py")
            except OSError:
                pass
def _tb(w, b):
    # From here on the board itself ends the deploy, also after a cut: w/start stands for its boot.py.
    try:
        with open(b) as f:
            t = f.read()
        with open(w + "/start") as f:
            if t != f.read():
                with open(w + "/boot", "w") as g:
                    g.write(t)
    except OSError:
        pass
    os.rename(w + "/start", b)
def _td(w):
    _px()
    try:
        # The board's own boot.py waits there only while ours stands for it.
        if "boot" not in os.listdir(w):
            _pgone(w)
    except OSError:
        pass
