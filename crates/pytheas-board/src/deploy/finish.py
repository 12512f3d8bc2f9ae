import os
def _pend(w, b):
    # Does what the list in w says: r(ename) what waits there to its place, d(elete). May be repeated.
    # A dot for each: with hundreds of files it takes longer than a host waits for a silent board.
    with open(w + "/todo") as f:
        for x in f:
            print(end=".")
            k, s, p = x[:-1].split(" ", 2)
            s = w + "/" + s
            try:
                if k == "d":
                    os.remove(p)
                    while 1:
                        p = p[:p.rindex("/")]
                        os.rmdir(p)
                os.stat(s)
            except (OSError, ValueError):
                continue
            a = ""
            for d in p.split("/")[:-1]:
                a += d + "/"
                try:
                    os.mkdir(a[:-1] or "/")
                except OSError:
                    pass
            os.rename(s, p)
    if b:
        # The board's own boot.py comes back; where there is none, ours goes.
        if "boot" in os.listdir(w):
            os.rename(w + "/boot", b)
        else:
            os.remove(b)
def _pgone(w):
    for x in os.listdir(w):
        print(end=".")
        os.remove(w + "/" + x)
    os.rmdir(w)
