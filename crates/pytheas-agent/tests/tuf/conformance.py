"""Client conformance: `conformance.py CLIENT [--only TEXT]` runs every case and prints one line each.

The cases are those of the official suite (top-level roles, rotation, rollback, freeze, hashes,
delegations, role names, key types, hash algorithms, downloads), and more of the same kinds.
"""

import concurrent.futures
import functools
import itertools
import json
import shutil
import sys
import traceback

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Delegations, Metadata, MetaFile, SuccinctRoles, Targets

from simulator import Client, Repo, Server, days

CASES = {}
START = [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]


class Skip(Exception):
    pass


def case(*variants):
    def register(test):
        for variant in variants or [None]:
            name = test.__name__ if variant is None else f"{test.__name__}[{variant[0]}]"
            CASES[name] = test if variant is None else functools.partial(lambda t, v, c: t(c, *v[1:]), test, variant)
        return test
    return register


def eq(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def faked():
    if not shutil.which("faketime"):
        raise Skip("no `faketime`")


def started(c, **how):
    repo = c.use(Repo(**how))
    eq(c.init(), 0)
    return repo


# --- basics


@case()
def refresh_asks_for_what_is_needed_and_no_more(c):
    repo = started(c)
    eq(c.refresh(), 0)
    eq(repo.log, START)
    repo.log.clear()
    eq(c.refresh(), 0)
    eq(repo.log, START[:2])


@case()
def init_asks_for_nothing(c):
    repo = started(c)
    eq(repo.log, [])
    eq(c.roles(), {"root": 1})


@case()
def refresh_trusts_what_was_published_byte_for_byte(c):
    repo = started(c)
    repo.published["timestamp"][None] += b" \n"
    eq(c.refresh(), 0)
    for role in ["root", "timestamp", "snapshot", "targets"]:
        eq((c.metadata / f"{role}.json").read_bytes(), repo.bytes(role))


@case()
def download_refreshes_first(c):
    repo = started(c)
    eq(c.download("nonexistent artifact"), 1)
    eq(repo.log, START)
    eq(c.roles(), {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1})


def no_version(root):
    del root["signed"]["version"]


def other_signature(root):
    root["signatures"][0]["sig"] = "3045022100ee448afe2d25dd1f05afedac83a24e7df90f203615221434979153dc7cea6d47"


def no_signature(root):
    root["signatures"] = []


@case(("no version", no_version), ("other signature", other_signature), ("no signature", no_signature))
def a_wrong_first_root_is_refused_without_a_request(c, change):
    repo = c.use(Repo())
    repo.edit("root", change)
    c.init()
    eq(c.refresh(), 1)
    eq(repo.log, [])


@case(("root", "root", {"root": 1}), ("timestamp", "timestamp", {"root": 2}),
      ("snapshot", "snapshot", {"root": 2, "timestamp": 2}),
      ("targets", "targets", {"root": 2, "timestamp": 2, "snapshot": 2}))
def an_unsigned_role_ends_the_refresh_there(c, role, trusted):
    repo = c.use(Repo())
    repo.signers[role].pop()
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.init(), 0)
    eq(c.refresh(), 1)
    eq(c.roles(), trusted)


@case(("root", "root", {"root": 1}), ("snapshot", "snapshot", {"root": 2, "timestamp": 2}),
      ("targets", "targets", {"root": 2, "timestamp": 2, "snapshot": 2}))
def another_version_than_the_name_says_is_refused(c, role, trusted):
    repo = started(c)
    for name in ["root", "targets", "snapshot", "timestamp"]:
        repo.publish(name)
        if name == role:
            repo.resign(role, lambda document: document["signed"].update(version=3))
    eq(c.refresh(), 1)
    eq(c.roles(), trusted)


@case()
def a_timestamp_of_the_same_version_is_no_news(c):
    repo = started(c)
    eq(c.refresh(), 0)
    repo.timestamp.snapshot_meta.version = 100
    repo.publish("timestamp", bump=False)
    eq(c.refresh(), 0)
    eq(repo.log[-1], ("timestamp", None))
    eq(json.loads((c.metadata / "timestamp.json").read_bytes())["signed"]["meta"]["snapshot.json"]["version"], 1)


@case()
def hashes_of_metadata_are_checked(c):
    repo = started(c)
    repo.hashes = True
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    repo.publish("targets")
    repo.snapshot.meta["targets.json"].hashes["sha256"] = "46" * 32
    repo.publish("snapshot", "timestamp")
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 2})


@case(("longer", 1), ("shorter", -1))
def lengths_of_metadata_are_checked(c, by):
    repo = started(c)
    repo.hashes = True
    repo.publish("targets", "snapshot")
    repo.timestamp.snapshot_meta.length += by
    repo.publish("timestamp")
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 1, "timestamp": 2})


@case(("only unknown", {"x-hash": "00"}, 1), ("beside a known one", None, 0))
def unknown_hashes_of_metadata(c, hashes, code):
    repo = started(c)
    repo.hashes = True
    repo.publish("snapshot")
    meta = repo.timestamp.snapshot_meta
    meta.hashes = hashes or {"x-hash": "00", **meta.hashes}
    repo.publish("timestamp")
    eq(c.refresh(), code)


@case()
def unknown_fields_everywhere_are_kept(c):
    repo = started(c)
    eq(c.refresh(), 0)
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields["extra"] = {"a": 1, "b": [True, None, "ü\"\\\n"]}
    repo.add_key("root", signer)
    repo.root.unrecognized_fields["custom"] = "value"
    repo.root.roles["root"].unrecognized_fields["other"] = -5
    for role in ["targets", "snapshot", "timestamp"]:
        repo.md[role].signed.unrecognized_fields["x"] = {"": []}
    repo.timestamp.snapshot_meta.unrecognized_fields["y"] = 1
    repo.delegate("team")
    repo.targets.delegations.unrecognized_fields["z"] = "z"
    repo.targets.delegations.roles["team"].unrecognized_fields["z"] = "z"
    repo.md["team"].unrecognized_fields["outside"] = "of what is signed"
    repo.target("one", b"1", "team")
    repo.md["team"].signed.targets["one"].unrecognized_fields["custom"] = {"any": "thing"}
    repo.publish("root", "team", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(c.version("root"), 2)


@case()
def deprecated_keyid_hash_algorithms_do_not_matter(c):
    repo = started(c)
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repo.root.roles["snapshot"].keyids.clear()
    repo.signers["snapshot"].clear()
    repo.add_key("snapshot", signer)
    repo.publish("root", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(c.roles(), {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1})


@case()
def a_missing_timestamp(c):
    repo = started(c)
    eq(c.refresh(), 0)
    del repo.published["timestamp"]
    eq(c.refresh(), 1)
    eq(repo.log[-1], ("timestamp", None))


@case()
def a_missing_snapshot(c):
    repo = started(c)
    eq(c.refresh(), 0)
    repo.timestamp.snapshot_meta.version += 1
    repo.publish("timestamp")
    eq(c.refresh(), 1)
    eq(repo.log[-1], ("snapshot", 2))
    eq(c.roles(), {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1})


@case()
def a_missing_targets(c):
    repo = started(c)
    eq(c.refresh(), 0)
    repo.snapshot.meta["targets.json"].version += 1
    repo.publish("snapshot", "timestamp")
    eq(c.refresh(), 1)
    eq(repo.log[-1], ("targets", 2))
    eq(c.roles(), {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1})


@case()
def metadata_of_another_type_is_refused(c):
    repo = started(c)
    repo.add_key("snapshot", repo.signers["timestamp"][0])
    repo.publish("root")
    repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repo.publish("snapshot")
    repo.published["timestamp"][None] = repo.published["snapshot"].pop(2)
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 2})


@case(("2.0", "2.0.0", 1), ("1.0.99", "1.0.99", 0))
def versions_of_the_specification(c, version, code):
    repo = started(c)
    repo.publish("timestamp")
    repo.resign("timestamp", lambda document: document["signed"].update(spec_version=version))
    eq(c.refresh(), code)


@case()
def new_targets_that_the_snapshot_does_not_list_are_not_seen(c):
    repo = started(c)
    eq(c.refresh(), 0)
    repo.publish("targets")
    eq(c.refresh(), 0)
    eq(c.version("targets"), 1)
    eq(repo.log[-1], ("timestamp", None))


@case(("yes", True), ("no", False))
def many_new_roots_at_once(c, expired_between):
    repo = started(c)
    for _ in range(40):
        repo.root.expires = days(-1) if expired_between else days(30)
        repo.publish("root")
    repo.root.expires = days(30)
    repo.publish("root")
    eq(c.refresh(), 0)
    eq(c.version("root"), 42)


# --- expiry


def expired_later(repo, role):
    repo.md[role].signed.expires = days(-1)
    repo.publish(*{"root": ["root"], "timestamp": ["timestamp"], "snapshot": ["snapshot", "timestamp"],
                   "targets": ["targets", "snapshot", "timestamp"]}[role])


@case(("root", "root", (2, 1, 1, 1)), ("timestamp", "timestamp", (1, 1, 1, 1)),
      ("snapshot", "snapshot", (1, 2, 1, 1)), ("targets", "targets", (1, 2, 2, 1)))
def expired_metadata_is_not_taken(c, role, trusted):
    repo = started(c)
    eq(c.refresh(), 0)
    expired_later(repo, role)
    eq(c.refresh(), 1)
    eq(c.roles(), dict(zip(["root", "timestamp", "snapshot", "targets"], trusted)))


@case()
def after_an_expired_root_nothing_else_is_asked_for(c):
    repo = started(c)
    eq(c.refresh(), 0)
    repo.root.expires = days(-1)
    repo.publish("root", "targets", "snapshot", "timestamp")
    repo.log.clear()
    eq(c.refresh(), 1)
    eq(repo.log, [("root", 2), ("root", 3)])
    eq(c.roles(), {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1})


@case(*[(role, role) for role in ["root", "timestamp", "snapshot", "targets"]])
def expired_local_metadata_is_replaced(c, role):
    faked()
    repo = started(c)
    repo.md[role].signed.expires = days(7)
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    repo.md[role].signed.expires = days(21)
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.refresh(at=days(18)), 0)
    eq(c.version(role), 3)


@case(*[(role, role) for role in ["root", "timestamp", "snapshot", "targets"]])
def expired_local_metadata_is_not_used(c, role):
    faked()
    repo = started(c)
    repo.md[role].signed.expires = days(7)
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(c.refresh(at=days(8)), 1)


# --- rollback


@case()
def a_timestamp_may_not_go_back(c):
    repo = started(c)
    repo.publish("timestamp")
    eq(c.refresh(), 0)
    repo.forget("timestamp", 1)
    repo.publish("timestamp")
    eq(c.refresh(), 1)
    eq(c.version("timestamp"), 2)
    eq(repo.log[-1], ("timestamp", None))


@case(("basic", False), ("with hashes", True))
def a_snapshot_may_not_go_back(c, hashes):
    repo = started(c)
    repo.hashes = hashes
    repo.publish("snapshot", "timestamp")
    eq(c.refresh(), 0)
    repo.forget("snapshot", 1)
    repo.publish("snapshot", "timestamp")
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1})
    eq(repo.log[-1], ("timestamp", None))


@case(("basic", False), ("with hashes", True))
def targets_may_not_go_back(c, hashes):
    repo = started(c)
    repo.hashes = hashes
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    repo.forget("targets", 1)
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2})


@case(("back", 1), ("gone", None))
def a_delegated_role_may_not_go_back_nor_vanish(c, version):
    repo = started(c)
    repo.delegate("team")
    repo.publish("team", "targets", "snapshot", "timestamp")
    repo.publish("team", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    if version:
        repo.snapshot.meta["team.json"].version = version
    else:
        del repo.snapshot.meta["team.json"]
    repo.publish("snapshot", "timestamp")
    eq(c.refresh(), 1)
    eq(c.version("snapshot"), 3)


@case(("targets", ["snapshot"], "targets"), ("snapshot", ["snapshot", "timestamp"], "snapshot"),
      ("timestamp", ["timestamp"], "timestamp"))
def recovery_from_a_fast_forward(c, rotated, role):
    repo = started(c)
    repo.md[role].signed.version = 99
    order = ["targets", "snapshot", "timestamp"]
    repo.publish(*order[order.index(role):])
    eq(c.refresh(), 0)
    eq(c.version(role), 100)
    for name in rotated:
        repo.rotate(name)
    repo.forget(role, 1)
    repo.publish("root", *order[order.index(role):])
    eq(c.refresh(), 0)
    eq(c.version(role), 1)


@case()
def a_fast_forward_without_new_keys_stays(c):
    repo = started(c)
    repo.timestamp.version = 99
    repo.publish("timestamp")
    eq(c.refresh(), 0)
    repo.forget("timestamp", 1)
    repo.publish("root", "timestamp")
    eq(c.refresh(), 1)
    eq(c.version("timestamp"), 100)


# --- keys


ROOTS = {
    "one key replaced": [([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])],
    "unused signatures": [([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4])],
    "3 of 5, other ones each time": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 2, 3, 4], 3, [0, 4, 1]), ([0, 1, 2, 3, 4], 3, [0, 1, 3])],
    "3 of 5, one replaced": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])],
    "3 of 5, one replaced with a step between": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])],
    "3 of 5, all replaced": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]), ([5, 6, 7, 8, 9], 3, [5, 6, 7])],
    "threshold up": [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])],
    "threshold down": [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1])],
    "key and threshold added": [([1], 1, [1]), ([1, 2], 2, [1, 2])],
    "FAILS not signed with the old key": [([1], 1, [1]), ([2], 1, [2, 3, 4])],
    "FAILS not signed with the new key": [([1], 1, [1]), ([2], 1, [1, 3, 4])],
    "FAILS too few new keys": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])],
    "FAILS too few old keys": [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])],
    "FAILS new threshold not reached": [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])],
    "FAILS old threshold not reached": [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])],
}


def signed_by(repo, role, signers, keys, threshold, signatures):
    repo.root.roles[role].keyids.clear()
    repo.root.roles[role].threshold = threshold
    for i in keys:
        repo.root.add_key(signers[i].public_key, role)
    repo.signers[role] = [signers[i] for i in signatures]


@case(*[(name, name, versions) for name, versions in ROOTS.items()])
def root_rotation(c, name, versions):
    repo = c.use(Repo())
    repo.forget("root", 1)
    signers = [CryptoSigner.generate_ed25519() for _ in range(10)]
    for version in versions:
        signed_by(repo, "root", signers, *version)
        repo.publish("root")
    eq(c.init(), 0)
    fails = name.startswith("FAILS")
    eq(c.refresh(), int(fails))
    eq((c.metadata / "root.json").read_bytes(), repo.published["root"][len(versions) - fails])


OTHERS = {
    "one key replaced": ([2], 1, [2], 0),
    "unused signatures": ([1], 1, [3, 1, 4], 0),
    "not signed with the new key": ([2], 1, [1, 3, 4], 1),
    "3 of 5, one of them not a key": ([0, 1, 3, 4, 5], 3, [0, 2, 4], 1),
    "3 of 5, two": ([0, 1, 3, 4, 5], 3, [0, 4], 1),
    "3 of 5, first": ([0, 1, 2, 3, 4], 3, [0, 2, 4], 0),
    "3 of 5, second": ([0, 1, 2, 3, 4], 3, [0, 4, 1], 0),
    "3 of 5, third": ([0, 1, 2, 3, 4], 3, [2, 3, 4], 0),
    "6 of 5": ([0, 1, 2, 3, 4], 6, [0, 1, 2, 3, 4], 1),
}


@case(*[(f"{role}: {name}", role, *how) for name, how in OTHERS.items() for role in ["timestamp", "snapshot", "targets"]])
def rotation_of_other_roles(c, role, keys, threshold, signatures, code):
    repo = started(c)
    eq(c.refresh(), 0)
    signers = [CryptoSigner.generate_ed25519() for _ in range(6)]
    signed_by(repo, role, signers, keys, threshold, signatures)
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.refresh(), code)
    eq(c.version("root"), 2)
    if code == 0:
        eq((c.metadata / f"{role}.json").read_bytes(), repo.bytes(role))
    else:
        assert c.version(role) != 2


@case(*[(role, role) for role in ["timestamp", "snapshot", "targets"]])
def a_key_listed_and_signing_many_times_counts_once(c, role):
    repo = started(c)
    signer = repo.add_key(role)
    repo.root.roles[role].keyids.extend([signer.public_key.keyid] * 8)
    repo.root.roles[role].threshold = 6
    repo.publish("root", "targets", "snapshot", "timestamp")

    def again(document):
        document["signatures"] += [document["signatures"][-1]] * 8

    repo.edit(role, again)
    eq(c.refresh(), 1)
    eq(c.version(role), None)


@case()
def a_key_under_two_names_counts_once(c):
    repo = started(c)
    signer = repo.signers["timestamp"][0]
    key = signer.public_key
    other = SSlibKey("ab" * 32, key.keytype, key.scheme, dict(key.keyval))
    repo.root.add_key(other, "timestamp")
    repo.root.roles["timestamp"].threshold = 2
    repo.publish("root", "timestamp")

    def under_the_other_name(document):
        document["signatures"].append({**document["signatures"][0], "keyid": other.keyid})

    repo.edit("timestamp", under_the_other_name)
    eq(c.refresh(), 1)
    eq(c.roles(), {"root": 2})


@case()
def a_signature_that_is_there_twice_is_refused(c):
    repo = started(c)
    repo.edit("snapshot", lambda document: document["signatures"].append(document["signatures"][0]))
    eq(c.refresh(), 1)
    eq(c.version("snapshot"), None)


@case(("wrong", "ab" * 64), ("empty", ""), ("no hex", "signature"))
def a_bad_signature_beside_enough_good_ones_does_no_harm(c, signature):
    repo = started(c)
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    repo.edit("timestamp", lambda document: document["signatures"][0].update(sig=signature))
    eq(c.refresh(), 0)
    eq(c.version("timestamp"), 2)


@case(("key type", {"keytype": "quantum"}), ("scheme", {"scheme": "ed448"}), ("value", {"keyval": {"public": "?"}}))
def a_key_of_an_unknown_kind_beside_a_known_one(c, change):
    repo = started(c)
    unknown = CryptoSigner.generate_ed25519().public_key.keyid

    def add(document):
        keys, role = document["signed"]["keys"], document["signed"]["roles"]["timestamp"]
        keys[unknown] = {**keys[role["keyids"][0]], **change}
        role["keyids"].append(unknown)

    repo.publish("root")
    repo.resign("root", add)
    eq(c.refresh(), 0)
    eq(c.version("root"), 2)


def p256():
    return CryptoSigner.generate_ecdsa()


def p384():
    from cryptography.hazmat.primitives.asymmetric import ec
    private = ec.generate_private_key(ec.SECP384R1())
    public = SSlibKey.from_crypto(private.public_key(), scheme="ecdsa-sha2-nistp384")
    return CryptoSigner(private, public)


def legacy(make, keytype):
    """As repositories of before 1.0.20 have it: the curve is in the key's type."""
    signer = make()
    key = signer.public_key
    signer._public_key = SSlibKey(key.keyid, keytype, key.scheme, dict(key.keyval))
    return signer


KINDS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "rsassa-pss-sha256": CryptoSigner.generate_rsa,
    "rsa-pkcs1v15-sha256": lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
    "ecdsa-sha2-nistp256": p256,
    "ecdsa-sha2-nistp384": p384,
    "legacy ecdsa-sha2-nistp256": lambda: legacy(p256, "ecdsa-sha2-nistp256"),
    "legacy ecdsa-sha2-nistp384": lambda: legacy(p384, "ecdsa-sha2-nistp384"),
}


@case(*[(name, make) for name, make in KINDS.items()])
def key_types(c, make):
    repo = started(c)
    signer = make()
    repo.add_key("root", signer)
    repo.root.roles["root"].threshold = 2
    repo.publish("root")
    eq(c.refresh(), 0)
    eq(c.version("root"), 2)
    repo.publish("root")

    def another(document):
        # A signature of the right form, over something else.
        wrong = signer.sign(b"something else").signature
        for signature in document["signatures"]:
            if signature["keyid"] == signer.public_key.keyid:
                signature["sig"] = wrong

    repo.edit("root", another)
    eq(c.refresh(), 1)
    eq(c.version("root"), 2)


# --- delegations


ANY = ("*",)
GRAPHS = {
    "one": ([("targets", "A")], "A"),
    "two": ([("targets", "A"), ("targets", "B")], "AB"),
    "two levels": ([("targets", "A"), ("targets", "B"), ("B", "C")], "ABC"),
    "two levels, depth first": ([("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "ACDB"),
    "three levels, depth first": ([("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "ACDB"),
    "terminating on the second level": ([("targets", "A"), ("targets", "B"), ("A", "C", True), ("A", "D")], "AC"),
    "terminating, with a descendant": ([("targets", "A"), ("targets", "B"), ("A", "C", True), ("C", "D")], "ACD"),
    "terminating on the first level": ([("targets", "A", True), ("targets", "B"), ("A", "C")], "AC"),
    "other paths": ([("targets", "A", False, ("*.py",)), ("targets", "B"), ("A", "C")], "B"),
    "other paths on the second level": ([("targets", "A"), ("targets", "B"), ("A", "C", False, ("*.py",)), ("C", "D")], "AB"),
    "terminating, but of other paths": ([("targets", "A", True, ("*.py",)), ("targets", "B")], "B"),
    "a circle": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), ("D", "B")], "ABCD"),
    "itself": ([("targets", "A"), ("A", "A")], "A"),
    "two to a third": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")], "ACB"),
    "two to a third by other paths": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C", False, ("*.py",))], "ABC"),
    "no paths": ([("targets", "A", False, ()), ("targets", "B")], "B"),
}


def grow(repo, delegations):
    roles = {}
    for delegator, role, *rest in delegations:
        terminating = rest[0] if rest else False
        paths = rest[1] if len(rest) > 1 else ANY
        repo.delegate(role, delegator, terminating=terminating, paths=paths)
        roles[role] = None
    return list(roles)


@case(*[(name, *graph) for name, graph in GRAPHS.items()])
def delegated_roles_are_asked_in_order(c, delegations, order):
    repo = started(c)
    repo.publish(*grow(repo, delegations), "targets", "snapshot", "timestamp")
    eq(c.download("missingpath"), 1)
    eq(repo.log[4:], [(role, 1) for role in order])
    eq(set(c.roles()), {"root", "timestamp", "snapshot", "targets", *order})


TREE = [("targets", "A", False, ("*.doc", "*.md")), ("targets", "B", False, ("releases/*/*",)),
        ("B", "C", False, ("releases/x/*",)), ("B", "D", False, ("releases/y/*.zip",))]


@case(("no delegation", "targetfile", "", True), ("a pattern", "README.md", "A", True),
      ("with separators x", "releases/x/x_v1", "BC", True), ("with separators y", "releases/y/y_v1.zip", "BD", True),
      ("not delegated all the way", "releases/z/z_v1.zip", "B", False),
      ("a star does not match a separator", "docs/README.md", "", False))
def targets_are_searched_by_their_paths(c, path, order, found):
    repo = started(c)
    roles = grow(repo, TREE)
    for role, name in [("targets", "targetfile"), ("A", "README.md"), ("A", "docs/README.md"), ("C", "releases/x/x_v1"),
                       ("D", "releases/y/y_v1.zip"), ("D", "releases/z/z_v1.zip")]:
        repo.target(name, f"{name} by {role}".encode(), role)
    repo.publish(*roles, "targets", "snapshot", "timestamp")
    eq(c.download(path), 0 if found else 1)
    eq(c.got(), [repo.files[path]] if found else [])
    eq(repo.log[4:], [(role, 1) for role in order])


@case()
def the_first_role_that_names_a_target_decides(c):
    repo = started(c)
    roles = grow(repo, [("targets", "A"), ("targets", "B")])
    repo.target("one", b"by B", "B")
    repo.target("one", b"by A", "A")
    repo.publish(*roles, "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(c.got(), [b"by A"])


@case()
def targets_by_the_hash_of_their_path(c):
    import hashlib
    repo = started(c)
    digest = hashlib.sha256(b"one").hexdigest()
    repo.delegate("A", prefixes=["0" if digest[0] != "0" else "1"])
    repo.delegate("B", prefixes=["ffff", digest[:3]])
    repo.target("one", b"by B", "B")
    repo.publish("A", "B", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(repo.log[4:], [("B", 1)])


@case(("1 bit", 1), ("8 bits", 8), ("13 bits", 13))
def targets_in_numbered_bins(c, bits):
    repo = started(c)
    bins = SuccinctRoles([], 1, bits, "bin")
    repo.targets.delegations = Delegations({}, None, bins)
    role = bins.get_role_for_target("one")
    repo.md[role] = Metadata(Targets(expires=days(30)))
    signer = CryptoSigner.generate_ed25519()
    repo.targets.add_key(signer.public_key)
    repo.signers[role] = [signer]
    repo.target("one", b"in a bin", role)
    repo.publish(role, "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(repo.log[4:], [(role, 1)])


@case(("at the limit", 31, 0), ("beyond it", 40, 1))
def not_endlessly_many_roles_are_asked(c, count, code):
    repo = started(c)
    roles = grow(repo, [("targets" if i == 0 else f"r{i - 1}", f"r{i}") for i in range(count)])
    repo.target("deep", b"down", roles[-1])
    repo.publish(*roles, "targets", "snapshot", "timestamp")
    eq(c.download("deep"), code)


@case(("threshold not reached", lambda repo: repo.targets.delegations.roles["A"].__setattr__("threshold", 2)),
      ("another key", lambda repo: repo.signers.__setitem__("A", [CryptoSigner.generate_ed25519()])),
      ("root's key", lambda repo: repo.signers.__setitem__("A", repo.signers["root"])))
def a_delegated_role_must_be_signed_as_its_delegator_says(c, change):
    repo = started(c)
    repo.delegate("A")
    repo.delegate("B")
    repo.target("one", b"by A", "A")
    repo.target("one", b"by B", "B")
    change(repo)
    repo.publish("A", "B", "targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(c.download("one"), 1)
    eq(c.got(), [])
    assert "A" not in c.roles() and "B" not in c.roles()


@case()
def a_delegated_role_with_two_signatures(c):
    repo = started(c)
    repo.delegate("A", threshold=2)
    repo.add_key("A", delegator="targets")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)


@case()
def a_revoked_team_is_out(c):
    repo = started(c)
    repo.delegate("A")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    repo.targets.delegations.roles["A"].keyids.clear()
    stolen, repo.signers["A"] = repo.signers["A"], []
    repo.add_key("A", delegator="targets")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 1)  # what lies on disk is signed by the old key
    repo.publish("A", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    repo.signers["A"] = stolen
    repo.target("one", b"2", "A")
    repo.publish("A", "snapshot", "timestamp")
    eq(c.download("one"), 1)
    eq(c.got(), [b"1"])


@case(("unlisted", None), ("of another version", 2))
def a_delegated_role_must_be_as_the_snapshot_says(c, version):
    repo = started(c)
    repo.delegate("A")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets")
    if version:
        repo.published["A"][version] = repo.published["A"][1]
        repo.snapshot.meta["A.json"] = MetaFile(version)
    else:
        del repo.snapshot.meta["A.json"]
    repo.publish("snapshot", "timestamp")
    eq(c.download("one"), 1)
    assert "A" not in c.roles()


@case()
def hashes_of_delegated_roles_are_checked(c):
    repo = started(c)
    repo.hashes = True
    repo.delegate("A")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets")
    repo.published["A"][1] += b" "
    repo.publish("snapshot", "timestamp")
    eq(c.download("one"), 1)
    assert "A" not in c.roles()


@case()
def an_expired_delegated_role_is_not_taken(c):
    repo = started(c)
    repo.delegate("A", expires=days(-1), paths=["a/*"])
    repo.target("a/one", b"1", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(c.download("a/one"), 1)
    eq(c.got(), [])
    eq(c.roles(), {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2})


@case(("not used", False), ("replaced", True))
def an_expired_local_delegated_role_is(c, replaced):
    faked()
    repo = started(c)
    repo.delegate("A", expires=days(7))
    repo.target("first", b"1", "A")
    repo.target("second", b"2", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("first"), 0)
    if replaced:
        repo.md["A"].signed.expires = days(21)
        repo.publish("A", "snapshot", "timestamp")
    eq(c.download("second", at=days(18)), 0 if replaced else 1)
    eq(c.got(), [b"1", b"2"] if replaced else [b"1"])


@case()
def a_delegated_role_is_fetched_once(c):
    repo = started(c)
    repo.delegate("A")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(c.download("one"), 0)
    eq(repo.log.count(("A", 1)), 1)


@case()
def a_torn_local_delegated_role_is_fetched_again(c):
    repo = started(c)
    repo.delegate("A")
    repo.target("one", b"1", "A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    (c.metadata / "A.json").write_bytes(repo.bytes("A")[:100])
    eq(c.download("one"), 0)
    eq((c.metadata / "A.json").read_bytes(), repo.bytes("A"))


NAMES = ["?", "#", "/delegatedrole", "../delegatedrole", ".", "..", "a b", "%41", "ü", "1.root", "forget", "x" * 60]


@case(*[(name, name) for name in NAMES])
def unusual_role_names(c, name):
    from urllib.parse import quote
    repo = started(c)
    repo.delegate(name)
    repo.publish(name, "targets", "snapshot", "timestamp")
    eq(c.download("nonexistent target"), 1)
    assert (quote(name, ""), 1) in repo.log, repo.log
    eq(len(c.roles()), 5)
    eq(sorted(p.name for p in c.metadata.parent.iterdir()), ["initial.json", "metadata", "targets"])


@case(*[(name or "empty", name) for name in ["root", "targets", "snapshot", "timestamp", ""]])
def names_that_a_delegated_role_cannot_have(c, name):
    repo = started(c)
    repo.delegate("A")
    repo.publish("A", "targets", "snapshot", "timestamp")
    before = c.roles()

    def rename(document):
        document["signed"]["delegations"]["roles"][0]["name"] = name

    repo.resign("targets", rename)
    eq(c.download("any"), 1)
    eq(c.version("root"), before["root"])
    eq(c.version("targets"), None)


# --- consistent snapshots


@case()
def without_consistent_snapshots_names_have_no_versions(c):
    repo = started(c, consistent=False)
    repo.delegate("A", paths=["a/*"])
    repo.target("a/one", b"1", "A")
    repo.target("top", b"0")
    repo.publish("A", "targets", "snapshot", "timestamp")
    eq(c.download("a/one", "top"), 0)
    eq(repo.log, [("root", 2), ("timestamp", None), ("snapshot", None), ("targets", None), ("A", None)])
    eq(repo.fetched, ["a/one", "top"])
    eq(c.got(), [b"1", b"0"])


@case()
def with_consistent_snapshots_targets_have_their_hash_in_the_name(c):
    import hashlib
    repo = started(c)
    repo.target("a/b/one", b"1")
    repo.target("top", b"0")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("a/b/one", "top"), 0)
    eq(repo.fetched, [f"a/b/{hashlib.sha256(b'1').hexdigest()}.one", f"{hashlib.sha256(b'0').hexdigest()}.top"])


@case(("on", False), ("off", True))
def consistent_snapshots_turned(c, before):
    repo = started(c, consistent=before)
    eq(c.refresh(), 0)
    repo.root.consistent_snapshot = not before
    repo.publish("root", "targets", "snapshot", "timestamp")
    repo.log.clear()
    eq(c.refresh(), 0)
    version = None if before else 2
    eq(repo.log, [("root", 2), ("root", 3), ("timestamp", None), ("snapshot", version), ("targets", version)])


@case()
def a_root_that_does_not_speak_of_consistent_snapshots(c):
    repo = started(c)
    repo.root.consistent_snapshot = None
    repo.publish("root", "targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(repo.log[-1], ("targets", None))


# --- downloads


@case(("top", "target_file.txt"), ("in a folder", "path/to/a/target_file.txt"), ("blank", "a b.txt"),
      ("query", "what?.txt"), ("fragment", "a#b"), ("percent", "100%41"), ("plus", "a+b"), ("unicode", "grün/tür"),
      ("brackets", "a[1].txt"), ("long", "d/" * 60 + "x" * 120), ("dot", ".hidden"), ("quotes", "\"'\\"))
def downloads(c, path):
    repo = started(c)
    repo.target(path, b"target file contents")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.refresh(), 0)
    eq(c.got(), [])
    eq(c.download(path), 0)
    eq(c.got(), [b"target file contents"])


@case(("up", "../outside"), ("absolute", "/outside"), ("inside", "a/../../../outside"))
def a_target_stays_in_its_folder(c, path):
    repo = started(c)
    repo.target(path, b"content")
    repo.publish("targets", "snapshot", "timestamp")
    c.download(path)  # whether such a name is served is the server's affair
    eq(sorted(p.name for p in c.metadata.parent.iterdir()), ["initial.json", "metadata", "targets"])


@case(("content", b"malicious data - should not download"), ("same length", b"CONTENT"), ("longer", b"contentX"),
      ("shorter", b"conten"), ("empty", b""))
def other_content_is_refused(c, malicious):
    repo = started(c)
    repo.target("first", b"first one")
    repo.target("second", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("first"), 0)
    for path in repo.files:
        repo.files[path] = malicious
    eq(c.download("first"), 0)
    eq(c.got(), [b"first one"])
    eq(c.download("second"), 1)
    eq(c.got(), [b"first one"])


@case()
def a_target_that_is_there_is_not_fetched_again(c):
    repo = started(c)
    repo.target("one", b"1")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(c.download("one"), 0)
    eq(len(repo.fetched), 1)
    for path in c.downloads.iterdir():
        path.write_bytes(b"changed by somebody")
    eq(c.download("one"), 0)
    eq(len(repo.fetched), 2)
    eq(c.got(), [b"1"])


@case()
def a_target_that_changes_often(c):
    repo = started(c)
    for i in range(6):
        content = f"content {i}".encode()
        repo.target("one", content)
        repo.target(f"new-{i}", b"new")
        repo.publish("targets", "snapshot", "timestamp")
        if i % 2:
            continue
        eq(c.download("one"), 0)
        eq(c.got()[-1], content)
        for path in repo.files:
            if path.endswith("one"):
                repo.files[path] = b"malicious"
        repo.publish("targets", "snapshot", "timestamp")
        eq(c.download("one"), 0)
        eq(c.got(), [content])


@case()
def a_target_that_is_gone(c):
    repo = started(c)
    repo.target("one", b"1")
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    del repo.targets.targets["one"]
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 1)


@case(("sha256", ["sha256"]), ("sha512", ["sha512"]), ("both", ["sha256", "sha512"]), ("sha384", ["sha384"]))
def hash_algorithms(c, hashes):
    repo = started(c)
    repo.target("one", b"content", hashes=hashes)
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 0)
    eq(len(repo.fetched), 1)
    assert repo.fetched[0].split(".")[0] in repo.targets.targets["one"].hashes.values()
    eq(c.got(), [b"content"])


@case(("only unknown", False, 1), ("beside a known one", True, 0))
def unknown_hash_algorithms(c, beside, code):
    repo = started(c)
    repo.target("one", b"content")
    hashes = repo.targets.targets["one"].hashes
    hashes["unknown-hash"] = hashes["sha256"]
    if not beside:
        del hashes["sha256"]
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), code)
    eq(c.got(), [b"content"] if beside else [])


@case()
def every_known_hash_must_be_right(c):
    repo = started(c)
    repo.target("one", b"content", hashes=["sha256", "sha512"])
    repo.targets.targets["one"].hashes["sha512"] = "00" * 64
    repo.publish("targets", "snapshot", "timestamp")
    eq(c.download("one"), 1)
    eq(c.got(), [])


def main():
    command, only = sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else ""
    server, numbers = Server(), itertools.count()

    def run(name):
        try:
            client = Client(command, server, next(numbers))
            try:
                CASES[name](client)
            except AssertionError as error:
                raise AssertionError(f"{error}; the client said: {client.said}") from error
            return "ok"
        except Skip as why:
            return f"SKIP {why}"
        except Exception:
            return "FAILED\n" + traceback.format_exc()

    chosen = [name for name in CASES if only in name]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, chosen))
    for name, result in zip(chosen, results):
        print(f"{name}: {result}")
    good = results.count("ok")
    print(f"{good} of {len(chosen)} cases passed, {sum(r.startswith('SKIP') for r in results)} skipped")
    sys.exit(any(result.startswith("FAILED") for result in results))


if __name__ == "__main__":
    main()
