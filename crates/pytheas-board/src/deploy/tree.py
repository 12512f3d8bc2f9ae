# The board's side of a deploy of files (tree.rs); needs files.py.
def _tq(w, m, l):
    # Which of the files are there: their hashes; with w, what was deployed before and what waits there.
    try:
        if w:
            with open(m) as f:
                for x in f:
                    print("o", x, end="")
    except OSError:
        pass
    try:
        if w:
            for x in os.ilistdir(w):
                print("w", x[0])
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
    open(w + "/begun", "w").close()
    os.rename(w + "/start", b)
def _td(w):
    # Throws away what waits, unless the board has begun to put it in place.
    _px()
    try:
        os.stat(w + "/begun")
    except OSError:
        try:
            _pgone(w)
        except OSError:
            pass
