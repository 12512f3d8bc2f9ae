import os
def _pend(w, b):
    # Does what the list in w says: r(ename) what waits there to its place, d(elete). May be repeated.
    # A mark (SYN) for each: with hundreds of files it takes longer than a host waits for a silent board.
    with open(w + "/todo") as f:
        for x in f:
            print(end="\x16")
            k, s, p = x[:-1].split(" ", 2)
            s = w + "/" + s
            try:
                if k == "d":
                    # A file, or a folder that is empty.
                    for r in os.remove, os.rmdir:
                        try:
                            r(p)
                        except OSError:
                            pass
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
        try:
            os.stat(w + "/boot")
        except OSError:
            os.remove(b)
        else:
            os.rename(w + "/boot", b)
def _pgone(w):
    # A list of all the names would not fit into small memories.
    l = [1]
    while l:
        l = []
        for x in os.ilistdir(w):
            l.append(w + "/" + x[0])
            if len(l) > 30:
                break
        for x in l:
            print(end="\x16")
            os.remove(x)
    os.rmdir(w)
