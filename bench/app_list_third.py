"""A third list of published applications of `apps.py`: servers, things' networks, checks and builds.

As in `app_list.py`: a smoke run gets a bare place to run in, the program, and an empty folder. Most
are a few files, commands and a text that must come out (`does`), or a page (`server`); in these
`DIR` is the empty folder and `PORT` a free port.
"""

import socket

from app_list import get
from app_list_more import SYSTEM, home
from common import Failed, free_port


def put(files, dir, port=0):
    for name, text in (files or {}).items():
        path = dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("DIR", str(dir)).replace("PORT", str(port)))


def does(*steps, files=None):
    """Commands in turn: arguments, a text that they print (`FILE:TEXT`: that they write), exit codes."""
    def smoke(bare, program, dir):
        put(files, dir)
        for arguments, wanted, *codes in steps:
            arguments = [argument.replace("DIR", str(dir)) for argument in arguments]
            text = bare.run([program, *arguments], env=home(dir, BARE_PATH=SYSTEM), ok=codes or (0,))
            file, colon, inside = wanted.partition(":")
            if colon:
                text, wanted = (dir / file).read_text(), inside
            assert wanted in text, text
    return smoke


def server(arguments, pages, files=None, first=(), seconds=90):
    """A server and what its pages have."""
    def smoke(bare, program, dir):
        port = free_port()
        put(files, dir, port)

        def command(arguments):
            given = [argument.replace("DIR", str(dir)).replace("PORT", str(port)) for argument in arguments]
            return [program, *given]
        for before in first:
            bare.run(command(before), env=home(dir, BARE_PATH=SYSTEM))
        with bare.start(command(arguments), dir / "log", env=home(dir, BARE_PATH=SYSTEM)) as running:
            for page, wanted in pages.items():
                running.until(get(f"http://127.0.0.1:{port}{page}", wanted), seconds=seconds)
    return smoke


def calls(arguments, files, wanted):
    """A client that calls a port of ours; what it says first."""
    def smoke(bare, program, dir):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(90)
            put(files, dir, listener.getsockname()[1])
            given = [argument.replace("DIR", str(dir)) for argument in arguments]
            with bare.start([program, *given], dir / "log", env=home(dir)):
                client, _ = listener.accept()
                client.settimeout(60)
                said = b""
                while wanted not in said:
                    part = client.recv(300)
                    assert part, said
                    said += part
                client.close()
    return smoke


def circus(bare, program, dir):
    put({"c.ini": f"[circus]\nendpoint=ipc://{dir}/e\npubsub_endpoint=ipc://{dir}/p\n"
                  f"[watcher:w]\ncmd=/bin/sh -c 'echo wet soil > {dir}/out; sleep 60'\n"}, dir)
    with bare.start([program, "c.ini"], dir / "log", env=home(dir, BARE_PATH=SYSTEM)) as running:
        running.until(lambda: "wet soil" in (dir / "out").read_text())


def rns(bare, program, dir):
    port = free_port()
    put({"c/config": "[reticulum]\nenable_transport=no\nshare_instance=no\n[logging]\nloglevel=5\n[interfaces]\n"
                     "[[t]]\ntype=TCPServerInterface\nenabled=yes\nlisten_ip=127.0.0.1\nlisten_port=PORT\n"}, dir, port)
    with bare.start([program, "--config", dir / "c", "-v"], dir / "log", env=home(dir)) as running:
        running.until(lambda: socket.create_connection(("127.0.0.1", port), 5).close() is None)


def weewx(bare, program, dir):
    env = home(dir, BARE_PATH=SYSTEM)
    bare.run([program, "station", "create", dir / "w", "--no-prompt", "--driver=weewx.drivers.simulator"], env=env)
    bare.run([program, "database", "create", "--config", dir / "w/weewx.conf", "-y"], env=env)
    bare.run([program, "report", "run", "--config", dir / "w/weewx.conf"], env=env)
    if not (dir / "w/public_html").exists():
        raise Failed("no page was made")


def meshtastic(bare, program, dir):
    text = bare.run([program, "--host", "127.0.0.1:1", "--info"], env=home(dir), ok=(0, 1))
    assert "127.0.0.1" in text, text


LEDGER = ('option "title" "Plants"\n2024-01-01 open Assets:Bed\n2024-01-01 open Expenses:Soil\n'
          '2024-01-02 * "wet soil"\n  Assets:Bed  -1 EUR\n  Expenses:Soil\n')
DBC = 'VERSION "1"\nNS_ :\nBS_:\nBU_: A\nBO_ 100 Soil: 8 A\n SG_ wet : 0|8@1+ (1,0) [0|255] "%" A\n'
CHERRY = ("import cherrypy\nclass R:\n    @cherrypy.expose\n    def index(self): return 'wet soil'\n"
          "cherrypy.tree.mount(R())\n")
SANIC = "from sanic import Sanic, text\napp = Sanic('plants')\n@app.get('/')\nasync def h(r): return text('wet soil')\n"
QUART = ("from quart import Quart, render_template_string\napp = Quart('plants')\n@app.get('/')\n"
         "async def h(): return await render_template_string('wet {{x}}', x='soil')\n")
PLOT = ("from bokeh.io import curdoc\nfrom bokeh.plotting import figure\np = figure()\np.line([1, 2], [3, 4])\n"
        "curdoc().add_root(p)\n")


THIRD = [
    {"package": "kinto", "version": "26.5.0", "kind": "web (pyramid, paste), a formatter named by a template", "quick": ["version"],
     "smoke": server(["start", "--ini", "k.ini", "--port", "PORT"], {"/v1/": "kinto"},
                     first=[["init", "--ini", "k.ini", "--backend", "memory", "--cache-backend", "memory"]])},
    {"package": "cherrypy", "version": "18.10.0", "entry": "cherryd", "kind": "web, user's modules",
     "smoke": server(["-P", "DIR", "-i", "plants", "-c", "c.conf"], {"/": "wet soil"},
                     {"c.conf": "[global]\nserver.socket_host='127.0.0.1'\nserver.socket_port=PORT\n", "plants.py": CHERRY})},
    {"package": "sanic", "version": "25.12.1", "kind": "web, spawned processes",
     "smoke": server(["plants:app", "--port", "PORT", "--host", "127.0.0.1", "--workers", "2"], {"/": "wet soil"}, {"plants.py": SANIC})},
    {"package": "quart", "version": "0.22.0", "kind": "web, async",
     "smoke": server(["--app", "plants:app", "run", "--port", "PORT"], {"/": "wet soil"}, {"plants.py": QUART})},
    {"package": "bokeh", "version": "3.9.2", "kind": "plots in a server, front end as data",
     "smoke": server(["serve", "a.py", "--port", "PORT"], {"/a": "bokeh", "/static/js/bokeh.min.js": "Bokeh"}, {"a.py": PLOT})},
    {"package": "isso", "version": "0.14.0", "kind": "web, C extension from source",
     "smoke": server(["-c", "i.cfg", "run"], {"/js/embed.min.js": "isso"},
                     {"i.cfg": "[general]\ndbpath=DIR/c.db\nhost=http://127.0.0.1/\n[server]\nlisten=http://127.0.0.1:PORT\n"})},
    {"package": "fava", "version": "1.30.16", "kind": "web, grammar in C, front end as data",
     "smoke": server(["a.beancount", "-p", "PORT"], {"/plants/income_statement/": "fava"}, {"a.beancount": LEDGER})},
    {"package": "pypiserver", "version": "2.4.2", "entry": "pypi-server", "kind": "web, templates",
     "smoke": server(["run", "-p", "PORT", "-i", "127.0.0.1", "DIR"], {"/": "pypiserver"})},
    {"package": "mqtt-io", "version": "2.7.0", "entry": "mqtt_io.__main__:main", "kind": "MQTT, modules by name", "quick": ["--help"],
     "smoke": calls(["c.yml"], {"c.yml": "mqtt:\n  host: 127.0.0.1\n  port: PORT\n  topic_prefix: bed\nsensor_modules:\n  - name: m\n"
                                         "    module: mock\nsensor_inputs:\n  - name: s\n    module: m\n    interval: 1\n"}, b"MQTT")},
    {"package": "rns", "version": "1.5.7", "entry": "rnsd", "kind": "mesh network, interfaces by name", "smoke": rns},
    {"package": "weewx", "version": "5.5.2", "entry": "weectl", "kind": "weather station, templates, drivers by name", "smoke": weewx},
    {"package": "meshtastic", "version": "2.7.11", "kind": "radio, protobuf", "smoke": meshtastic},
    {"package": "cantools", "version": "45.1.0", "kind": "CAN bus",
     "smoke": does((["dump", "a.dbc"], "Soil"), (["generate_c_source", "a.dbc"], "a.h:soil"), files={"a.dbc": DBC})},
    {"package": "circus", "version": "0.19.0", "entry": "circusd", "kind": "processes, ZeroMQ", "smoke": circus},
    {"package": "subliminal", "version": "2.8.0", "with": ["six==1.17.0"], "kind": "stevedore, entry points in strings",
     "smoke": does((["--cache-dir", "DIR", "download", "-p", "opensubtitles", "-l", "en", "Plants.S01E01.mkv"], "1 video", 0, 1, 2))},
    {"package": "errbot", "version": "6.2.1", "kind": "plug-ins by folder, templates",
     "smoke": does((["--init"], "errbot"), (["--list"], "Text"))},
    {"package": "pyinfra", "version": "3.10.0", "kind": "gevent, user's modules",
     "smoke": does((["-y", "@local", "d.py"], "out:wet"),
                   files={"d.py": "from pyinfra.operations import server\nserver.shell(name='x', commands=['echo wet > out'])\n"})},
    {"package": "behave", "version": "1.3.3", "kind": "checks, user's modules",
     "smoke": does(([], "1 scenario passed"),
                   files={"features/a.feature": "Feature: a\n  Scenario: b\n    Given wet soil\n",
                          "features/steps/s.py": "from behave import given\n@given('wet soil')\ndef s(c): pass\n"})},
    {"package": "rst2pdf", "version": "0.105", "kind": "PDF, styles as data",
     "smoke": does((["a.rst", "-o", "a.pdf"], ""), files={"a.rst": "Plants\n======\n\n.. code-block:: python\n\n   print(1)\n\nwet *soil*\n"})},
]
