"""The published applications of `apps.py`, each with a smoke run that does its real work.

A smoke run gets a bare place to run in (`common.Bare`), the program, and an empty folder. It fails
by `assert` or `Failed`.
"""

import contextlib
import http.client
import http.server
import json
import re
import socket
import sqlite3
import struct
import threading
import urllib.request

from common import Failed, free_port


def get(address: str, wanted: str):
    """A question for `Server.until`: the page has this text."""
    def ask():
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                text = answer.read().decode(errors="replace")
        except http.client.HTTPException as error:  # a placeholder while the app starts
            raise Failed(repr(error)) from error
        if wanted not in text:
            raise Failed(f"no `{wanted}` in {text[:300]}")
        return True
    return ask


@contextlib.contextmanager
def local_server(body: bytes):
    """A web server in this process; gives its address."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("content-length") or 0)
            sent = self.rfile.read(length)
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(body + sent)
        do_GET = do_POST = answer

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def httpie(bare, program, dir):
    with local_server(b"hello-") as address:
        text = bare.run([program, "--ignore-stdin", "--json", "POST", address, "soil=wet"])
    assert 'hello-{"soil": "wet"}' in text, text


def datasette(bare, program, dir):
    with contextlib.closing(sqlite3.connect(dir / "green.db")) as db:
        db.execute("create table plants (name text)")
        db.execute("insert into plants values ('basil')")
        db.commit()
    port = free_port()
    with bare.start([program, "serve", "green.db", "-p", port], dir / "log") as server:
        server.until(get(f"http://127.0.0.1:{port}/green/plants.json?_shape=array", "basil"))
        server.until(get(f"http://127.0.0.1:{port}/green/plants", "<table"))


def mkdocs(bare, program, dir):
    (dir / "docs").mkdir()
    (dir / "docs/index.md").write_text("# Greenhouse\n\n```python\nprint(1)\n```\n\n!!! note\n    wet\n")
    (dir / "mkdocs.yml").write_text(
        "site_name: Plants\ntheme:\n  name: material\nplugins: [search]\n"
        "markdown_extensions: [admonition, pymdownx.highlight, pymdownx.superfences, toc]\n")
    bare.run([program, "build", "-d", "site"])
    page = (dir / "site/index.html").read_text()
    assert "Greenhouse" in page and "admonition" in page and "md-header" in page, page[:500]
    assert (dir / "site/search/search_index.json").exists()


def octoprint(bare, program, dir):
    port = free_port()
    (dir / "base").mkdir()
    with bare.start([program, "serve", "--iknowwhatimdoing", "--basedir", dir / "base", "--host", "127.0.0.1",
                     "--port", port], dir / "log") as server:
        # The first answers are those of a placeholder.
        server.until(get(f"http://127.0.0.1:{port}/", "/static/webassets/"), seconds=150)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            asset = re.search(r"[\"'](/static/webassets/[^\"']+)[\"']", page.read().decode()).group(1)
        server.until(get(f"http://127.0.0.1:{port}{asset}", "{"), seconds=60)


def black(bare, program, dir):
    for name in ("a.py", "b.py"):  # two files: worker processes
        (dir / name).write_text("x = { 'a':1 }\n")
    bare.run([program, "a.py", "b.py"])
    assert (dir / "b.py").read_text() == 'x = {"a": 1}\n'


def yt_dlp(bare, program, dir):
    text = bare.run([program, "--list-extractors"])
    assert len(text.splitlines()) > 1500, len(text.splitlines())
    with local_server(b"<html><title>t</title><video src='clip.mp4'></video>") as address:
        text = bare.run([program, "--simulate", "--print", "url", f"{address}/page"])
    assert "clip.mp4" in text, text


def esphome(bare, program, dir):
    (dir / "node.yaml").write_text(
        "esphome:\n  name: node\nesp8266:\n  board: d1_mini\nlogger:\n"
        "sensor:\n  - platform: dht\n    pin: D2\n    temperature:\n      name: air\n    humidity:\n      name: wet\n")
    text = bare.run([program, "config", "node.yaml"])
    assert "Configuration is valid" in text and "filters" in text or "name: air" in text, text


def gunicorn(bare, program, dir):
    (dir / "plants.py").write_text(
        "def app(environ, start):\n    start('200 OK', [])\n    return [b'wet soil']\n")
    port = free_port()
    with bare.start([program, "-w", "2", "-b", f"127.0.0.1:{port}", "plants:app"], dir / "log") as server:
        server.until(get(f"http://127.0.0.1:{port}/", "wet soil"))


def uvicorn(bare, program, dir):
    (dir / "plants.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n        return\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'wet soil'})\n")
    port = free_port()
    with bare.start([program, "--app-dir", dir, "--workers", "2", "--loop", "uvloop", "--port", port, "plants:app"],
                    dir / "log") as server:
        server.until(get(f"http://127.0.0.1:{port}/", "wet soil"))


def nbconvert(bare, program, dir):
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# Soil $x^2$", "id": "a"},
             {"cell_type": "code", "metadata": {}, "source": "print(1)", "outputs": [], "execution_count": None, "id": "b"}]
    (dir / "soil.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    bare.run([program, "--to", "html", "soil.ipynb"])
    page = (dir / "soil.html").read_text()
    assert "Soil" in page and 'class="highlight' in page, page[-500:]


def jupyterlab(bare, program, dir):
    port = free_port()
    with bare.start([program, "--no-browser", "--allow-root", "--ServerApp.token=", f"--port={port}", "--ip=127.0.0.1"],
                    dir / "log", env={"HOME": dir}) as server:
        server.until(get(f"http://127.0.0.1:{port}/lab", "JupyterLab"), seconds=90)
        server.until(get(f"http://127.0.0.1:{port}/api/kernelspecs", "python3"))
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/kernels", data=b'{"name": "python3"}', method="POST")
        xsrf = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = xsrf.open(f"http://127.0.0.1:{port}/lab", timeout=20)
        cookies = [v.split(";")[0] for k, v in page.headers.items() if k.lower() == "set-cookie"]
        token = next((c.split("=", 1)[1] for c in cookies if c.startswith("_xsrf=")), "")
        request.add_header("Cookie", "; ".join(cookies))
        request.add_header("X-XSRFToken", token)
        with urllib.request.urlopen(request, timeout=30) as answer:
            kernel = json.loads(answer.read())["id"]

        def idle():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/kernels/{kernel}", timeout=10) as answer:
                return json.loads(answer.read())["connections"] is not None and "dead" not in server.text()
        server.until(idle)


def ansible(bare, program, dir):
    text = bare.run([program, "localhost", "-c", "local", "-m", "ping"], 
                    env={"LC_ALL": "C.UTF-8", "HOME": dir, "BARE_PATH": "/usr/bin:/bin"})  # it runs `mkdir`
    assert '"ping": "pong"' in text, text


def awscli(bare, program, dir):
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1", "HOME": dir}
    text = bare.run([program, "s3", "presign", "s3://plants/basil.jpg"], env=keys)
    assert "X-Amz-Signature" in text or "Signature=" in text, text
    text = bare.run([program, "ec2", "describe-instances", "--generate-cli-skeleton"], env=keys)
    assert "InstanceIds" in text, text


def csvs_to_sqlite(bare, program, dir):
    (dir / "soil.csv").write_text("day,moisture\n2024-05-01,41.5\n2024-05-02,39\n")
    bare.run([program, "soil.csv", "soil.db", "-dt", "day"])
    with contextlib.closing(sqlite3.connect(dir / "soil.db")) as db:
        assert db.execute("select sum(moisture) from soil").fetchone() == (80.5,)


def visidata(bare, program, dir):
    (dir / "soil.csv").write_text("day,moisture\n1,41.5\n2,39\n")
    bare.run([program, "-b", "soil.csv", "-o", "soil.json"], env={"HOME": dir})
    assert json.loads((dir / "soil.json").read_text())[1]["moisture"] in (39, "39"), "soil.json"


def rasterio(bare, program, dir):
    # A grey image of 4x4 bytes, as a portable grey map: GDAL reads it.
    (dir / "soil.pgm").write_bytes(b"P5\n4 4\n255\n" + bytes(range(16)))
    text = bare.run([program, "info", "soil.pgm"])
    assert json.loads(text[text.index("{"):])["width"] == 4, text
    bare.run([program, "warp", "soil.pgm", "out.tif", "--src-crs", "EPSG:4326", "--dst-crs", "EPSG:3857",
              "--src-bounds", "0", "0", "1", "1"], ok=(0, 2))
    text = bare.run([program, "transform", "--src-crs", "EPSG:4326", "--dst-crs", "EPSG:3857", "[9.0, 50.0]"])
    assert "1001875" in text, text


def string(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def amqtt(bare, program, dir):
    """A message from one client to another through the broker, in MQTT 3.1.1 by hand."""
    port = free_port()
    (dir / "broker.yaml").write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "auth:\n  allow-anonymous: true\ntopic-check:\n  enabled: false\n")

    def packet(kind, body):
        return bytes([kind, len(body)]) + body

    def client(name):
        stream = socket.create_connection(("127.0.0.1", port), 5)
        stream.sendall(packet(0x10, string("MQTT") + b"\x04\x02\x00\x3c" + string(name)))
        answer = stream.recv(4)
        if answer != b"\x20\x02\x00\x00":
            raise Failed(f"CONNACK {answer!r}")
        return stream

    with bare.start([program, "-c", "broker.yaml"], dir / "log", env={"HOME": dir}) as server:
        reader = server.until(lambda: client("reader"))
        reader.sendall(packet(0x82, b"\x00\x01" + string("soil/+") + b"\x00"))
        assert reader.recv(16)[0] == 0x90
        writer = client("writer")
        writer.sendall(packet(0x30, string("soil/bed1") + b"wet"))
        got = reader.recv(64)
        assert got.endswith(b"soil/bed1wet"), got


def sphinx(bare, program, dir):
    (dir / "conf.py").write_text("project = 'Plants'\nextensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon']\n")
    (dir / "index.rst").write_text("Plants\n======\n\n.. code-block:: python\n\n   print(1)\n\n.. automodule:: json\n")
    bare.run([program, "-b", "html", dir, dir / "out"], env={"LC_ALL": "C.UTF-8"})
    page = (dir / "out/index.html").read_text()
    assert "highlight" in page and "JavaScript" in page, page[:500]


def scrapy(bare, program, dir):
    (dir / "spider.py").write_text(
        "import scrapy\n\nclass S(scrapy.Spider):\n    name = 's'\n"
        "    def __init__(self, url=None, **k):\n        super().__init__(**k)\n        self.start_urls = [url]\n"
        "    def parse(self, response):\n        yield {'title': response.css('title::text').get()}\n")
    with local_server(b"<html><title>wet soil</title></html>") as address:
        text = bare.run([program, "runspider", "spider.py", "-a", f"url={address}", "-O", "out.json"], env={"HOME": dir})
    assert json.loads((dir / "out.json").read_text()) == [{"title": "wet soil"}], text


def streamlit(bare, program, dir):
    (dir / "app.py").write_text("import streamlit as st\nst.title('soil')\n")
    port = free_port()
    with bare.start([program, "run", "app.py", "--server.headless", "true", "--server.port", port,
                     "--browser.gatherUsageStats", "false"], dir / "log", env={"HOME": dir}) as server:
        server.until(get(f"http://127.0.0.1:{port}/_stcore/health", "ok"))
        server.until(get(f"http://127.0.0.1:{port}/", "Streamlit"))


def celery(bare, program, dir):
    (dir / "in").mkdir()
    (dir / "tasks.py").write_text(
        "from celery import Celery\nfrom celery.signals import worker_ready\n"
        "app = Celery('t', broker='filesystem://')\n"
        f"app.conf.broker_transport_options = {{'data_folder_in': {str(dir / 'in')!r}, 'data_folder_out': {str(dir / 'in')!r}}}\n"
        "@app.task\ndef water(bed):\n    print('watered', bed, flush=True)\n"
        "@worker_ready.connect\ndef go(**_):\n    water.delay('bed-7')\n")
    with bare.start([program, "-A", "tasks", "worker", "-c", "2", "-l", "INFO"], dir / "log",
                    env={"C_FORCE_ROOT": "1", "HOME": dir}) as server:
        server.until(lambda: "bed-7" in server.text() and "succeeded in" in server.text())


def cookiecutter(bare, program, dir):
    (dir / "t/{{cookiecutter.name}}").mkdir(parents=True)
    (dir / "t/cookiecutter.json").write_text('{"name": "bed"}')
    (dir / "t/{{cookiecutter.name}}/README.md").write_text("{{ cookiecutter.name | upper }} {{ 'a b' | slugify }}")
    bare.run([program, "--no-input", "t", "name=tomato"], env={"HOME": dir})
    assert (dir / "tomato/README.md").read_text() == "TOMATO a-b"


def poetry(bare, program, dir):
    bare.run([program, "new", "plants"], env={"HOME": dir})
    assert "plants" in (dir / "plants/pyproject.toml").read_text()
    text = bare.run([program, "-C", dir / "plants", "check"], env={"HOME": dir}, ok=(0, 1))
    assert "All set" in text or "rror" in text, text
    bare.run([program, "-C", dir / "plants", "build", "-f", "sdist"], env={"HOME": dir}, ok=(0,))


def litecli(bare, program, dir):
    text = bare.run([program, "x.db", "-e", "select 6*7 as answer"], env={"HOME": dir})
    assert "42" in text, text


def sqlfluff(bare, program, dir):
    (dir / "q.sql").write_text("SELECT a  from t\n")
    text = bare.run([program, "lint", "--dialect", "postgres", "q.sql"], ok=(1,))
    assert "LT01" in text and "CP01" in text, text


def glances(bare, program, dir):
    text = bare.run([program, "--stdout", "cpu.user,mem.used", "--stop-after", "2", "--time", "1"], env={"HOME": dir})
    assert "mem.used" in text, text


def keyring(bare, program, dir):
    text = bare.run([program, "--list-backends"], env={"HOME": dir})
    assert "keyring.backends.fail.Keyring" in text and "keyring.backends.SecretService" in text or "chainer" in text, text


def locust(bare, program, dir):
    (dir / "locustfile.py").write_text(
        "from locust import HttpUser, task\n\nclass U(HttpUser):\n    @task\n    def go(self):\n        self.client.get('/')\n")
    with local_server(b"ok") as address:
        text = bare.run([program, "--headless", "-u", "2", "-r", "2", "-t", "2s", "--host", address, "--only-summary"],
                        env={"HOME": dir}, timeout=60)
    assert "Aggregated" in text and "0(0.00%)" in text.replace(" ", ""), text


def pylint(bare, program, dir):
    (dir / "m.py").write_text("import os\nx = undefined_name\n")
    text = bare.run([program, "m.py"], env={"HOME": dir}, ok=(22, 6, 20, 18, 30, 2))
    assert "undefined-variable" in text and "unused-import" in text, text


def ruff(bare, program, dir):
    (dir / "m.py").write_text("import os\n")
    text = bare.run([program, "check", "m.py"], ok=(1,), env={"HOME": dir})
    assert "F401" in text, text


APPS = [
    {"package": "httpie", "version": "3.2.4", "entry": "httpie.__main__:main", "kind": "CLI, plug-ins", "smoke": httpie},
    {"package": "datasette", "version": "0.65.1", "kind": "web, async, templates, plug-ins", "smoke": datasette},
    {"package": "mkdocs", "version": "1.6.1", "with": ["mkdocs-material==9.5.39"], "kind": "entry-point plug-ins, data files", "smoke": mkdocs},
    {"package": "octoprint", "version": "1.10.3", "kind": "web, bundled plug-ins, data files", "smoke": octoprint},
    {"package": "black", "version": "24.8.0", "kind": "compiled (mypyc), processes", "smoke": black},
    {"package": "yt-dlp", "version": "2024.10.22", "kind": "2,000 lazy modules", "smoke": yt_dlp},
    {"package": "esphome", "version": "2024.9.2", "kind": "imports by name, data files", "smoke": esphome},
    {"package": "gunicorn", "version": "23.0.0", "kind": "web, fork, imports by name", "smoke": gunicorn},
    {"package": "uvicorn", "extra": "uvicorn[standard]", "version": "0.30.6", "kind": "async, extra, spawned processes", "smoke": uvicorn},
    {"package": "nbconvert", "version": "7.17.2", "entry": "nbconvert.nbconvertapp:main", "kind": "science, data in share/", "smoke": nbconvert},
    {"package": "ansible-core", "version": "2.17.5", "entry": "ansible.cli.adhoc:main", "kind": "plug-ins by folder, starts Python", "smoke": ansible},
    {"package": "awscli", "version": "1.35.5", "entry": "awscli.clidriver:main", "kind": "data files, scripts without entry point", "smoke": awscli},
    {"package": "csvs-to-sqlite", "version": "1.3.1", "kind": "numpy, pandas", "smoke": csvs_to_sqlite, "with": ["pandas==2.2.3"]},
    {"package": "rasterio", "version": "1.4.4", "kind": "numpy, GDAL, data files", "smoke": rasterio},
    {"package": "amqtt", "version": "0.11.4", "kind": "MQTT broker, async, plug-ins", "smoke": amqtt},
    {"package": "sphinx", "version": "7.4.7", "entry": "sphinx.cmd.build:main", "kind": "namespace packages, extensions by name", "smoke": sphinx},
    {"package": "scrapy", "version": "2.17.0", "kind": "twisted, lxml, classes by name", "smoke": scrapy},
    {"package": "streamlit", "version": "1.39.0", "kind": "web, pandas, arrow, front end", "smoke": streamlit},
    {"package": "celery", "version": "5.4.0", "kind": "workers, transports by name", "smoke": celery},
    {"package": "cookiecutter", "version": "2.6.0", "kind": "templates, extensions by name", "smoke": cookiecutter},
    {"package": "poetry", "version": "1.8.4", "kind": "commands by name, data files", "smoke": poetry},
    {"package": "litecli", "version": "1.12.3", "kind": "terminal", "smoke": litecli},
    {"package": "sqlfluff", "version": "3.2.4", "kind": "plug-ins, dialects by name", "smoke": sqlfluff},
    {"package": "glances", "version": "4.3.3", "kind": "C extension, plug-ins by folder", "smoke": glances},
    {"package": "visidata", "version": "3.0.2", "entry": "visidata.main:vd_cli", "kind": "terminal, modules by folder", "smoke": visidata},
    {"package": "keyring", "version": "25.4.1", "kind": "namespace packages, entry-point plug-ins", "smoke": keyring, "quick": ["--help"]},
    {"package": "jupyterlab", "version": "4.2.5", "entry": "jupyterlab.labapp:main", "kind": "web, data in share/ and etc/, kernels", "smoke": jupyterlab},
    {"package": "locust", "version": "2.31.8", "kind": "gevent, web", "smoke": locust},
    {"package": "pylint", "version": "3.3.1", "kind": "modules by folder", "smoke": pylint},
    {"package": "ruff", "version": "0.7.0", "kind": "a binary in a wheel", "smoke": ruff},
]
