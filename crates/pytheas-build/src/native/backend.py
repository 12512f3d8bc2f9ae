"""Calls one hook of a build back end (PEP 517) and writes its answer: `backend.py CALL ANSWER`."""
import importlib
import json
import os
import sys

call_path, answer_path = sys.argv[1:3]
with open(call_path, encoding="utf-8") as file:
    call = json.load(file)
# Back ends and `setup.py` must see their own folder first, not this script's.
sys.path[:1] = [os.path.join(os.getcwd(), part) for part in call["path"]]
sys.argv[:] = ["backend"]
name, _, attribute = call["backend"].partition(":")
backend = importlib.import_module(name)
for part in attribute.split("."):
    if part:
        backend = getattr(backend, part)
if call["hook"] == "requires":
    hook = getattr(backend, "get_requires_for_build_wheel", None)
    answer = hook({}) if hook else []
else:
    answer = backend.build_wheel(call["out"], {}, None)
with open(answer_path, "w", encoding="utf-8") as file:
    json.dump(answer, file)
