"""Makes the TUF metadata of a folder of published releases anew, with python-tuf and its own keys.

    make_repository.py REPO OUT          who signs: root (1 key), targets, a team, online
    make_repository.py REPO OUT steal    one of two targets keys and the online keys signed a lie

The releases in REPO (`targets/NAME/VERSION/PLATFORM/HASH.release.json`) are named by the delegated
role `team`, which may name `app/*/*/release.json` only. The targets role needs two of three
signatures. OUT gets `root.json` and the keys. With `steal`, the highest release is named as
version 9.9.9 by the top-level role, signed as far as the stolen keys go.
"""

import json
import pathlib
import sys
from datetime import datetime, timedelta, timezone

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

repo, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
mode = (sys.argv[3:] or ["make"])[0]
online = ["snapshot", "timestamp"]
metadata = repo / "metadata"
expires = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
# Each key of another kind.
KEYS = {
    "root": CryptoSigner.generate_rsa,
    "targets-1": CryptoSigner.generate_ed25519,
    "targets-2": CryptoSigner.generate_ecdsa,
    "targets-3": CryptoSigner.generate_ed25519,
    "team": CryptoSigner.generate_ecdsa,
    "snapshot": CryptoSigner.generate_ed25519,
    "timestamp": CryptoSigner.generate_ed25519,
    "snapshot-new": CryptoSigner.generate_ed25519,
    "timestamp-new": CryptoSigner.generate_ed25519,
}


def load(name):
    path = out / f"{name}.pem"
    if not path.exists():
        private = KEYS[name]()._private_key
        path.write_bytes(private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return CryptoSigner(serialization.load_pem_private_key(path.read_bytes(), None))


out.mkdir(exist_ok=True)
keys = {name: load(name) for name in KEYS}


def releases():
    for path in sorted(repo.glob("targets/*/*/*/*.release.json")):
        digest, _, name = path.name.partition(".")
        target = str(path.parent.relative_to(repo / "targets") / name)
        yield target, TargetFile.from_data(target, path.read_bytes(), ["sha256"])


def write(signed, signers, name, versioned=True):
    document = Metadata(signed)
    for signer in signers:
        document.sign(keys[signer], append=True)
    prefix = f"{signed.version}." if versioned else ""
    data = document.to_bytes(JSONSerializer())
    (metadata / f"{prefix}{name}.json").write_bytes(data)
    return data


def read(role):
    files = metadata.glob(f"*.{role}.json")
    newest = max(files, key=lambda path: int(path.name.split(".")[0]))
    return Metadata.from_bytes(newest.read_bytes()).signed


if mode in ["ahead", "recover"]:
    targets, snapshot = read("targets"), read("snapshot")
    timestamp = Metadata.from_file(str(metadata / "timestamp.json")).signed
    if mode == "ahead":  # a thief with the online keys
        snapshot.version = timestamp.version = 1_000_000
    else:  # the owner: other online keys, versions from the beginning
        root = read("root")
        for role in online:
            root.revoke_key(keys[role].public_key.keyid, role)
            root.add_key(keys[role + "-new"].public_key, role)
        root.version += 1
        write(root, ["root"], "root")
        snapshot.version = timestamp.version = 0
        online = ["snapshot-new", "timestamp-new"]
elif mode == "steal":
    targets, snapshot = read("targets"), read("snapshot")
    timestamp = Metadata.from_file(str(metadata / "timestamp.json")).signed
    name, file = list(releases())[-1]
    parts = name.split("/")
    lie = "/".join([parts[0], "9.9.9", *parts[2:]])
    targets.targets[lie] = TargetFile(file.length, file.hashes, lie)
    targets.version += 1
    write(targets, ["targets-1"], "targets")
else:
    for path in metadata.iterdir():
        path.unlink()
    root = Root(expires=expires, consistent_snapshot=True)
    for role in ["root", "snapshot", "timestamp"]:
        root.add_key(keys[role].public_key, role)
    for name in ["targets-1", "targets-2", "targets-3"]:
        root.add_key(keys[name].public_key, "targets")
    root.roles["targets"].threshold = 2
    (out / "root.json").write_bytes(write(root, ["root"], "root"))
    team = Targets(expires=expires)
    team.targets = dict(releases())
    write(team, ["team"], "team")
    targets = Targets(expires=expires)
    targets.delegations = Delegations({}, roles={
        "team": DelegatedRole("team", [], 1, False, ["app/*/*/release.json"], unrecognized_fields={"x-team": "a"})})
    targets.delegations.unrecognized_fields["x-more"] = {"kept": True}
    targets.add_key(keys["team"].public_key, "team")
    write(targets, ["targets-1", "targets-3"], "targets")
    snapshot, timestamp = Snapshot(expires=expires), Timestamp(expires=expires)
    snapshot.meta["team.json"] = MetaFile(1)
    snapshot.version = timestamp.version = 0
snapshot.meta["targets.json"] = MetaFile(targets.version)
snapshot.version += 1
timestamp.version += 1
timestamp.snapshot_meta = MetaFile(snapshot.version)
write(snapshot, online[:1], "snapshot")
write(timestamp, online[1:], "timestamp", versioned=False)
print(json.dumps(list(dict(releases()))))
