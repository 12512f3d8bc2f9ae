# The board's side of a deploy of files (tree.rs); needs files.py.
def _tq(w, m, b, d, l):
    # Which of the files l are there: their hashes; what is in the way of them and of the folders d. With
    # w: what was deployed before, what waits there, and whether ours stands for the boot.py b.
    if w:
        try:
            with open(m) as f:
                for x in f:
                    print("o", x, end="")
        except OSError:
            pass
        try:
            for x in os.ilistdir(w):
                print("w", x[0])
        except OSError:
            pass
        if _to(b):
            print("b 1")
    for p in d:
        try:
            if not os.stat(p)[0] & 0x4000:
                print("i", p)
        except OSError:
            pass
    for p, n in l:
        h = "-"
        try:
            s = os.stat(p)
            if s[0] & 0x4000:
                _ti(p)
            elif s[6] == n:
                h = _ph(p)
        except OSError:
            pass
        print("h", h)
        if p.endswith(".mpy"):
            try:
                os.stat(p[:-3] + "py")
                print("s", p[:-3] + "py")
            except OSError:
                pass
def _ti(p):
    # What is in the way, as far as it is a folder.
    print("i", p + "/")
    for x in os.ilistdir(p):
        n = p + "/" + x[0]
        if x[1] & 0x4000:
            _ti(n)
        else:
            print("i", n)
def _to(b):
    # Whether ours stands for the boot.py b: the board has begun to put files in place.
    try:
        with open(b, "rb") as f:
            return f.read(41) == b"# Written by `pytheas board deploy`: ends"
    except (OSError, TypeError):
        pass
def _tb(w, b):
    # From here on the board itself ends the deploy, also after a cut: w/start stands for its boot.py.
    t = None
    try:
        with open(b, "rb") as f:
            t = f.read()
    except OSError:
        # One that an earlier deploy has left behind is not to come back.
        try:
            os.remove(w + "/boot")
        except OSError:
            pass
    if t is not None:
        with open(w + "/boot", "wb") as f:
            f.write(t)
    os.rename(w + "/start", b)
def _ts(w, n):
    # Room that files take while they change places.
    with open(w + "/spare", "wb") as f:
        while n > 0:
            print(end="\x16")
            n -= f.write(bytes(512))
def _td(w, b):
    # Throws away what waits, unless the board has begun to put it in place.
    _px()
    if not _to(b):
        try:
            _pgone(w)
        except OSError:
            pass
