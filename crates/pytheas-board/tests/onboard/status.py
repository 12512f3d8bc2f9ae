import sys

sys.path.insert(0, sys.argv[1])
import json

from pytheas import slots

print(json.dumps(slots.Slots().status()))
