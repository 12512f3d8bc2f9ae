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
def _ta(w):
    # Does what the list in w says: r(ename) what waits here to its place, d(elete).
    with open(w + "/todo") as f:
        for x in f:
            k, s, p = x[:-1].split(" ", 2)
            if k == "r":
                _pm(p)
                os.rename(w + "/" + s, p)
                continue
            try:
                os.remove(p)
                while 1:
                    p = p[:p.rindex("/")]
                    os.rmdir(p)
            except (OSError, ValueError):
                pass
def _td(w):
    _px()
    try:
        for x in os.listdir(w):
            os.remove(w + "/" + x)
        os.rmdir(w)
    except OSError:
        pass
