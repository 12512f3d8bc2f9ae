# Lines of key, message, signature (hex): what `ed25519.verify` says of each, 1 or 0.
import sys

sys.path.insert(0, sys.argv[1])
from binascii import unhexlify

from pytheas import ed25519

with open(sys.argv[2]) as f:
    for line in f:
        k, m, s = line.rstrip("\n").split(",")
        print(int(bool(ed25519.verify(unhexlify(k), unhexlify(m), unhexlify(s)))))
