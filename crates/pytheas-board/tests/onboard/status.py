import sys

sys.path.insert(0, sys.argv[1])
import json

import pytheas

pytheas.ready()
names = "n active pending tries counter why action report write keys".split()
print(json.dumps(dict(zip(names, pytheas.r[2:]), slots=pytheas.r[:2])))
