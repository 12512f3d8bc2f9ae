# Feeds the file `incoming` to the writer, as a download or a serial line does.
import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import faults

import pytheas
from pytheas import Refused, hub

try:
    hub.start(int(sys.argv[3]), sys.argv[4])
    print("DONE", hub.done)
    with open(pytheas.ROOT + "incoming", "rb") as f:
        f.seek(hub.done)
        while True:
            b = f.read(700)
            if not b:
                break
            hub.write(b)
    hub.finish("7")
    print("WRITTEN")
except Refused as e:
    print("REFUSED", e)
if faults.mode == "count":
    print("CALLS", faults.count)
