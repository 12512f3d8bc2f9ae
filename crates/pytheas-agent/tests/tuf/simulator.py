"""A TUF repository in memory, made with python-tuf, behind a local web server that remembers what
it was asked, and the command line of the client under test.

Written for this project after the cases of the official client conformance suite, which is not
on PyPI. `Repo` bumps versions, signs, lists roles in the snapshot and the snapshot in the
timestamp; whatever is to be wrong is made wrong in the metadata before, or in the bytes after.
"""

import hashlib
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, unquote

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

TOP = ["root", "targets", "snapshot", "timestamp"]
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def days(n):
    return NOW + timedelta(days=n)


class Repo:
    def __init__(self, consistent=True):
        self.hashes = False  # whether snapshot and timestamp pin lengths and hashes
        self.signers, self.md, self.files, self.published = {}, {}, {}, {}
        self.log = []  # metadata asked for: (role, version or None)
        self.fetched = []  # targets asked for: paths
        expires = days(30)
        self.md["root"] = Metadata(Root(expires=expires, consistent_snapshot=consistent))
        self.md["targets"] = Metadata(Targets(expires=expires))
        self.md["snapshot"] = Metadata(Snapshot(expires=expires))
        self.md["timestamp"] = Metadata(Timestamp(expires=expires))
        for role in TOP:
            self.add_key(role)
        self.publish("targets", "snapshot", "timestamp", "root")

    @property
    def root(self):
        return self.md["root"].signed

    @property
    def targets(self):
        return self.md["targets"].signed

    @property
    def snapshot(self):
        return self.md["snapshot"].signed

    @property
    def timestamp(self):
        return self.md["timestamp"].signed

    def add_key(self, role, signer=None, delegator="root"):
        signer = signer or CryptoSigner.generate_ed25519()
        self.md[delegator].signed.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role):
        self.root.roles[role].keyids.clear()
        self.signers[role] = []
        for _ in range(self.root.roles[role].threshold):
            self.add_key(role)

    def delegate(self, role, delegator="targets", expires=None, threshold=1, terminating=False,
                 paths=("*",), prefixes=None):
        signed = self.md[delegator].signed
        if signed.delegations is None:
            signed.delegations = Delegations({}, roles={})
        paths = None if prefixes else list(paths)
        signed.delegations.roles[role] = DelegatedRole(role, [], threshold, terminating, paths, prefixes)
        self.md.setdefault(role, Metadata(Targets(expires=expires or days(30))))
        self.add_key(role, delegator=delegator)

    def target(self, path, content, role="targets", hashes=("sha256",)):
        file = TargetFile.from_data(path, content, list(hashes))
        self.md[role].signed.targets[path] = file
        self.serve(path, content, file.hashes)

    def serve(self, path, content, hashes):
        self.files[path] = content
        folder, slash, name = path.rpartition("/")
        for digest in hashes.values():
            self.files[f"{folder}{slash}{digest}.{name}"] = content

    def publish(self, *roles, bump=True):
        for role in roles:
            signed = self.md[role].signed
            if bump and role in self.published:
                signed.version += 1
            metadata = self.md[role]
            metadata.signatures.clear()
            for signer in self.signers[role]:
                metadata.sign(signer, append=True)
            self.put(role, metadata.to_bytes(JSONSerializer()), signed.version)

    def put(self, role, data, version):
        """Serves `data` as this version of the role, and lists it where it belongs."""
        self.published.setdefault(role, {})[version] = data
        self.published[role][None] = data
        pin = {}
        if self.hashes:
            pin = {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
        if role == "snapshot":
            self.timestamp.snapshot_meta = MetaFile(version, **pin)
        elif role not in ("root", "timestamp"):
            self.snapshot.meta[f"{role}.json"] = MetaFile(version, **pin)

    def edit(self, role, change):
        """Changes the JSON of what was published last, without signing it again."""
        document = json.loads(self.published[role][None])
        change(document)
        data = json.dumps(document).encode()
        version = max(v for v in self.published[role] if v)
        self.published[role][version] = self.published[role][None] = data
        return data

    def resign(self, role, change):
        """Changes the JSON of what was published last and signs just that, keeping unknown fields."""
        def signing(document):
            change(document)
            message = encode_canonical(document["signed"]).encode()
            document["signatures"] = [s.sign(message).to_dict() for s in self.signers[role]]
        return self.edit(role, signing)

    def forget(self, role, version):
        """Goes back: the role is published again from this version on."""
        self.published.pop(role)
        self.md[role].signed.version = version

    def bytes(self, role):
        return self.published[role][None]

    def answer(self, path):
        kind, _, rest = path.partition("/")
        if kind == "targets":
            self.fetched.append(rest)
            return self.files.get(unquote(rest))
        if kind != "metadata" or not rest.endswith(".json"):
            return None
        name, version = rest[: -len(".json")], None
        number, dot, role = name.partition(".")
        versioned = dot and number.isdigit() and (self.root.consistent_snapshot or role == "root")
        if versioned:
            name, version = role, int(number)
        self.log.append((name, version))
        for role, versions in self.published.items():
            if quote(role, "") == name:
                if version is None and role != "timestamp" and self.root.consistent_snapshot:
                    return None
                return versions.get(version)
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, _, path = self.path.lstrip("/").partition("/")
        try:
            data = self.server.repos[name].answer(path)
        except KeyError:
            data = None
        if data is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Client:
    """The client under test with folders of its own, at one repository."""

    def __init__(self, command, server, number):
        self.command, self.server = command, server
        self.name = f"case{number}"
        self.dir = tempfile.TemporaryDirectory(prefix="tuf-")
        self.metadata = pathlib.Path(self.dir.name, "metadata")
        self.downloads = pathlib.Path(self.dir.name, "targets")
        self.metadata.mkdir()
        self.downloads.mkdir()
        self.said = ""

    def use(self, repo):
        self.repo = self.server.repos[self.name] = repo
        return repo

    def run(self, *args, at=None):
        fake = ["faketime", at.strftime("%Y-%m-%d %H:%M:%S+00:00")] if at else []
        done = subprocess.run([*fake, self.command, "--metadata-dir", str(self.metadata), *args],
                              capture_output=True, text=True, timeout=120)
        self.said = done.stderr
        return done.returncode

    def url(self, kind):
        return f"http://127.0.0.1:{self.server.server_port}/{self.name}/{kind}/"

    def init(self, root=None):
        path = pathlib.Path(self.dir.name, "initial.json")
        path.write_bytes(root or self.repo.published["root"][1])
        return self.run("init", str(path))

    def refresh(self, at=None):
        return self.run("--metadata-url", self.url("metadata"), "refresh", at=at)

    def download(self, *names, at=None):
        targets = [arg for name in names for arg in ("--target-name", name)]
        return self.run("--metadata-url", self.url("metadata"), *targets, "--target-base-url",
                        self.url("targets"), "--target-dir", str(self.downloads), "download", at=at)

    def version(self, role):
        return self.roles().get(role)

    def roles(self):
        found = {}
        for path in self.metadata.glob("*.json"):
            found[path.name[: -len(".json")]] = json.loads(path.read_bytes())["signed"]["version"]
        return found

    def got(self):
        files = [path for path in self.downloads.rglob("*") if path.is_file()]
        return [path.read_bytes() for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]
