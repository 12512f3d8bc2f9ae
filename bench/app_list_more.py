"""More published applications of `apps.py`, each of a pattern that once failed or easily would.

As in `app_list.py`: a smoke run gets a bare place to run in, the program, and an empty folder.
"""

import json
import re
import socket

from app_list import get, string
from common import Failed, free_port

SYSTEM = "/usr/bin:/bin"  # for those that run the system's programs
ASGI = ("async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n        return\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'wet soil'})\n")


def home(dir, **more):
    return {"HOME": dir, "LC_ALL": "C.UTF-8"} | more


def django(bare, program, dir):
    settings = ["--settings", "plants.settings", "--pythonpath", dir]
    bare.run([program, "startproject", "plants", dir], env=home(dir))
    bare.run([program, "migrate", *settings], env=home(dir))
    port = free_port()
    # Its reloader starts `[sys.executable, *sys.argv]`.
    with bare.start([program, "runserver", f"127.0.0.1:{port}", *settings], dir / "log", env=home(dir)) as server:
        server.until(get(f"http://127.0.0.1:{port}/admin/login/", "Django administration"))
        server.until(get(f"http://127.0.0.1:{port}/static/admin/css/base.css", "{"))


def litestar(bare, program, dir):
    (dir / "plants.py").write_text(
        "from dataclasses import dataclass\nfrom litestar import Litestar, get\n\n"
        "@dataclass\nclass Plant:\n    name: str\n\n"
        "@get('/')\nasync def first() -> Plant:\n    return Plant('wet soil')\n\napp = Litestar([first])\n")
    port = free_port()
    with bare.start([program, "--app", "plants:app", "run", "-p", port], dir / "log", env=home(dir)) as server:
        server.until(get(f"http://127.0.0.1:{port}/", "wet soil"))
        server.until(get(f"http://127.0.0.1:{port}/schema/openapi.json", "components"))


def serves(*arguments):
    """A smoke run of an ASGI server; `PORT` in its arguments is a free port."""
    def smoke(bare, program, dir):
        (dir / "plants.py").write_text(ASGI)
        port = free_port()
        given = [argument.replace("PORT", str(port)) for argument in arguments]
        with bare.start([program, *given, "plants:app"], dir / "log", env=home(dir)) as server:
            server.until(get(f"http://127.0.0.1:{port}/", "wet soil"))
    return smoke


def notebook(dir, *sources):
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]} if at == 0 else {}, "source": source,
              "outputs": [], "execution_count": None, "id": f"c{at}"} for at, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    text = json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    (dir / "soil.ipynb").write_text(text)


def voila(bare, program, dir):
    notebook(dir, "print('wet' + ' soil')")
    port = free_port()
    with bare.start([program, "--no-browser", f"--port={port}", "soil.ipynb"], dir / "log", env=home(dir)) as server:
        server.until(get(f"http://127.0.0.1:{port}/", "wet soil"), seconds=90)


def papermill(bare, program, dir):
    notebook(dir, "bed = 1", "print('bed', bed * 6)")
    bare.run([program, "soil.ipynb", "out.ipynb", "-p", "bed", "7"], env=home(dir))
    assert "bed 42" in (dir / "out.ipynb").read_text()


def nox(bare, program, dir):
    (dir / "noxfile.py").write_text(
        "import nox\n\n@nox.session(venv_backend='virtualenv')\ndef t(s):\n    s.run('python', '-c', 'print(6*7)')\n")
    text = bare.run([program], env=home(dir))
    assert "42" in text and "successful" in text, text


def tox(bare, program, dir):
    (dir / "tox.ini").write_text("[tox]\nno_package=true\n[testenv]\nskip_install=true\ncommands=python -c 'print(6*7)'\n")
    text = bare.run([program, "-e", "py"], env=home(dir))
    assert "42" in text and "congratulations" in text, text


def mypy(bare, program, dir):
    (dir / "m.py").write_text("def f(x: int) -> str:\n    return x\n")
    text = bare.run([program, "m.py"], env=home(dir), ok=(1,))
    assert "Incompatible return value" in text, text


def flake8(bare, program, dir):
    (dir / "m.py").write_text("import os\ndef f(a=[]): pass\n")
    (dir / "n.py").write_text("import sys\n")  # two files: worker processes
    text = bare.run([program, "-j2", "m.py", "n.py"], env=home(dir), ok=(1,))
    assert "F401" in text and "B006" in text, text


def pytest(bare, program, dir):
    (dir / "test_a.py").write_text(
        "import pytest\n\n@pytest.mark.asyncio\nasync def test_a(): assert 1\n\n"
        "@pytest.mark.parametrize('x', range(4))\ndef test_b(x, mocker): assert x < 3\n")
    text = bare.run([program, "-n", "2", "--cov", ".", "-p", "no:cacheprovider"], env=home(dir), ok=(1,))
    assert "1 failed" in text and "4 passed" in text and "TOTAL" in text, text


def magic_wormhole(bare, program, dir):
    text = bare.run([program, "--relay-url", "ws://127.0.0.1:1/v1", "send", "--text", "x"], env=home(dir), ok=(0, 1))
    assert "refused" in text.lower() or "ConnectError" in text, text


def mqttwarn(bare, program, dir):
    """One message from a broker of a few lines to a file."""
    port = free_port()
    (dir / "mqttwarn.ini").write_text(
        f"[defaults]\nhostname='127.0.0.1'\nport={port}\nusername=None\npassword=None\nclientid='w'\nlaunch=file\n"
        f"[config:file]\ntargets={{'mylog': ['{dir}/out.txt']}}\n[soil/bed]\ntargets=file:mylog\nformat=wet {{payload}}\n")
    with socket.create_server(("127.0.0.1", port)) as broker:
        broker.settimeout(60)
        with bare.start([program], dir / "log", env=home(dir, MQTTWARNINI=dir / "mqttwarn.ini", BARE_PATH=SYSTEM)) as server:
            client, _ = broker.accept()
            client.settimeout(30)
            client.recv(200)
            client.sendall(b"\x20\x02\x00\x00")
            subscribed = client.recv(200)
            client.sendall(b"\x90\x03" + subscribed[2:4] + b"\x00")
            body = string("soil/bed") + b"42"
            client.sendall(bytes([0x30, len(body)]) + body)

            def written():
                if "wet 42" not in (dir / "out.txt").read_text():
                    raise Failed("nothing written")
                return True
            server.until(written)
            client.close()


def appdaemon(bare, program, dir):
    (dir / "apps").mkdir()
    (dir / "appdaemon.yaml").write_text(
        "appdaemon:\n  latitude: 0\n  longitude: 0\n  elevation: 0\n  time_zone: Europe/Berlin\n  plugins: {}\n"
        f"http:\n  url: http://127.0.0.1:{free_port()}\nadmin:\napi:\n")
    (dir / "apps/a.py").write_text(
        "import appdaemon.adapi as a\nclass A(a.ADAPI):\n    def initialize(self): self.log('wet soil')\n")
    (dir / "apps/apps.yaml").write_text("a:\n  module: a\n  class: A\n")
    with bare.start([program, "-c", dir], dir / "log", env=home(dir)) as server:
        server.until(lambda: "wet soil" in server.text())


def zigpy(bare, program, dir):
    text = bare.run([program, "radio", "ezsp", "/dev/none", "info"], env=home(dir), ok=(0, 1))
    assert "none" in text.lower(), text


def esptool(bare, program, dir):
    (dir / "a.bin").write_bytes(bytes([0xE9, 1, 2, 0x20]) + bytes(60))
    bare.run([program, "--chip", "esp32", "merge-bin", "-o", "o.bin", "0x1000", "a.bin"], env=home(dir))
    assert (dir / "o.bin").exists()
    text = bare.run([program, "--port", "/dev/none", "--chip", "esp32", "flash-id"], env=home(dir), ok=(1, 2))
    assert "/dev/none" in text, text


def synapse(bare, program, dir):
    bare.run([program, "--server-name", "plants.local", "--config-path", "h.yaml", "--generate-config",
              "--report-stats", "no"], env=home(dir))
    port = free_port()
    text = (dir / "h.yaml").read_text()
    (dir / "h.yaml").write_text(text.replace("8008", str(port)).replace("'::1', ", ""))
    with bare.start([program, "-c", "h.yaml"], dir / "log", env=home(dir)) as server:
        server.until(get(f"http://127.0.0.1:{port}/_matrix/client/versions", "versions"))


def gsutil(bare, program, dir):
    (dir / "f").write_text("wet")
    text = bare.run([program, "hash", "-h", dir / "f"], env=home(dir))
    assert re.search(r"md5\)?:\s+[0-9a-f]{32}", text, re.I), text


def openstack(bare, program, dir):
    text = bare.run([program, "--os-auth-url", "http://127.0.0.1:1", "--os-username", "a", "--os-password", "b",
                     "--os-project-name", "c", "server", "list"], env=home(dir), ok=(1,))
    assert "127.0.0.1" in text, text


def grpc_tools(bare, program, dir):
    (dir / "p.proto").write_text(
        'syntax = "proto3";\nimport "google/protobuf/timestamp.proto";\n'
        "message P { string n = 1; google.protobuf.Timestamp t = 2; }\nservice S { rpc G(P) returns (P); }\n")
    bare.run([program, "-I.", "--python_out=.", "--grpc_python_out=.", "p.proto"], env=home(dir))
    assert (dir / "p_pb2_grpc.py").exists()


def dask(bare, program, dir):
    port = free_port()
    with bare.start([program, "scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", "127.0.0.1:0"],
                    dir / "log", env=home(dir)) as server:
        server.until(lambda: "Scheduler at" in server.text())
        with bare.start([program, "worker", f"tcp://127.0.0.1:{port}", "--nworkers", "2", "--nthreads", "1",
                         "--no-dashboard"], dir / "log2", env=home(dir)) as worker:
            worker.until(lambda: worker.text().count("Registered to") >= 2)


def trac(bare, program, dir):
    bare.run([program, dir / "env", "initenv", "Plants", "sqlite:db/trac.db"], env=home(dir))
    text = bare.run([program, dir / "env", "component", "list"], env=home(dir))
    assert "component1" in text, text


MORE = [
    {"package": "django", "version": "5.2.19", "entry": "django-admin", "kind": "web, reloader, templates by folder", "smoke": django},
    {"package": "litestar", "extra": "litestar[standard]", "version": "2.25.0", "kind": "web, async, msgspec", "smoke": litestar},
    {"package": "granian", "version": "2.8.7", "kind": "web, Rust, spawned processes, entry in a submodule", "smoke": serves("--interface", "asgi", "--workers", "2", "--port", "PORT")},
    {"package": "daphne", "version": "4.2.3", "kind": "web, twisted, autobahn", "smoke": serves("-p", "PORT"), "quick": ["--help"]},
    {"package": "hypercorn", "version": "0.18.0", "kind": "web, spawned processes", "smoke": serves("-w", "2", "-b", "127.0.0.1:PORT"), "quick": ["--help"]},
    {"package": "voila", "version": "0.5.13", "with": ["ipykernel==7.4.0"], "kind": "web, kernels, data in share/", "smoke": voila},
    {"package": "papermill", "version": "2.7.0", "with": ["ipykernel==7.4.0"], "kind": "kernels", "smoke": papermill},
    {"package": "nox", "version": "2026.10.20", "kind": "runs `-m virtualenv`", "smoke": nox},
    {"package": "tox", "version": "4.67.15", "kind": "environments by virtualenv, plug-ins", "smoke": tox},
    {"package": "mypy", "version": "2.4.1", "kind": "compiled (mypyc), type stubs as data", "smoke": mypy},
    {"package": "flake8", "version": "7.5.0", "with": ["flake8-bugbear==26.10.27"], "kind": "entry-point plug-ins, processes", "smoke": flake8},
    {"package": "pytest", "version": "9.2.0", "with": ["pytest-xdist==3.8.0", "pytest-cov==7.1.0", "pytest-asyncio==1.5.0", "pytest-mock==3.17.0"],
     "kind": "entry-point plug-ins, starts Python", "smoke": pytest},
    {"package": "magic-wormhole", "version": "0.24.0", "entry": "wormhole", "kind": "twisted, zope, cffi", "smoke": magic_wormhole},
    {"package": "mqttwarn", "version": "0.36.1", "kind": "MQTT (paho), services by file", "smoke": mqttwarn},
    {"package": "appdaemon", "version": "4.5.13", "kind": "home automation, time zones, user's modules", "smoke": appdaemon},
    {"package": "zigpy-cli", "version": "2.0.0", "entry": "zigpy", "kind": "home automation, radios by name", "smoke": zigpy, "quick": ["--help"]},
    {"package": "esptool", "version": "5.6.0", "kind": "data files, chips by name", "smoke": esptool, "quick": ["version"]},
    {"package": "matrix-synapse", "version": "1.163.2", "entry": "synapse.app.homeserver", "kind": "web, Rust, twisted, SQL files", "smoke": synapse, "quick": ["--help"]},
    {"package": "gsutil", "version": "5.38", "kind": "commands by folder, vendored boto", "smoke": gsutil, "quick": ["version"]},
    {"package": "python-openstackclient", "version": "10.5.0", "entry": "openstack", "kind": "stevedore, commands by entry point", "smoke": openstack},
    {"package": "grpcio-tools", "version": "1.85.1", "entry": "grpc_tools.protoc", "kind": "C++ extension, data files, `python -m`", "smoke": grpc_tools},
    {"package": "dask", "extra": "dask[distributed]", "version": "2026.8.0", "kind": "forkserver, subcommands by entry point", "smoke": dask},
    {"package": "trac", "version": "1.6", "entry": "trac-admin", "kind": "plug-ins, pkg_resources", "smoke": trac},
]
