# A start of the device: what `/main.py` does.
import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import faults

import pytheas

try:
    pytheas.boot()
finally:
    if faults.mode == "count":
        print("CALLS", faults.count)
