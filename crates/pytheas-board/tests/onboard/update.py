# Feeds the file `incoming` to the writer, as a download or a serial line does.
import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import faults

from pytheas import Refused
from pytheas import slots

w = None
try:
    w = slots.Slots().writer(int(sys.argv[3]), sys.argv[4])
    print("DONE", w.done)
    with open(slots.ROOT + "/incoming", "rb") as f:
        f.seek(w.done)
        while True:
            b = f.read(700)
            if not b:
                break
            w.write(b)
    w.finish("7")
    print("WRITTEN")
except Refused as e:
    print("REFUSED", e)
if faults.mode == "count":
    print("CALLS", faults.count)
