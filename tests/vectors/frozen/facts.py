"""What is compared of a watermark and what belongs to it: the only lines here that know how wmplug is laid out.

Digests, leaves and the Merkle root are worked out here a second time, so that a change of wmplug's own is seen.
"""

import hashlib
import io
import itertools
import json

import numpy as np

import wmplug
from wmplug.keys.sealing import open_sealed
from wmplug.keys.streams import KeyStream
from wmplug.register import Register
from wmplug.training.placement import Placement

PURPOSES = ("input", "label", "schedule", "disclosure")
# Of what a scheme made beside inputs, what follows by arithmetic alone; the rest comes from a decomposition or network.
DERIVED = {"votes", "scores", "pair", "members", "own", "corner", "record", "place", "network"}


def plain(value):
    """As JSON reads it back."""
    return json.loads(json.dumps(value, default=lambda one: one.tolist()))


def canonical(document):
    """RFC 8785, of what holds no floats."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def spelt(value):
    """Dtype, shape and digest of an array or of texts."""
    if isinstance(value, list):
        return f"{len(value)} texts {sha256(canonical(value))[:32]}"
    array = np.ascontiguousarray(value)
    return f"{array.dtype.str} {list(np.shape(value))} {sha256(array.tobytes())[:32]}"


def seen(value):
    """One input as a model is given it."""
    if isinstance(value, str):
        return value
    return f"{getattr(value, 'mode', 'array')} {spelt(np.asarray(value))}"


def inputs_of(mark):
    return mark.triggers.plan.inputs


def answers_of(mark):
    return mark.triggers.answers.tolist()


def material_of(mark):
    return dict(mark.triggers.plan.material)


def stream_of(mark, purpose, name=""):
    return mark.subkeys.stream(purpose, name)


def leaves_of(mark):
    return mark.triggers.leaves(mark.id, stream_of(mark, "disclosure"))


def facts(mark):
    """All that has to stay of a watermark."""
    triggers, plan = mark.triggers, mark.triggers.plan
    leaves = [canonical(leaf) for leaf in leaves_of(mark)]
    return plain(
        {
            "public": mark.public,
            "form": triggers.form,
            "queries": len(triggers),
            "first": seen(triggers.first),
            "inputs": spelt(plan.inputs),
            "symbols": triggers.symbols,
            "answers": triggers.answers,
            "candidates": runs(plan.candidates),
            "draw": plan.draw,
            "groups": [group.tolist() for group in triggers.groups],
            "asked": plan.asked,
            "taught": plan.taught,
            "weighed": plan.weighed,
            "signs": triggers.signs,
            "lessons": sha256(canonical([[seen(x), y] for x, y in mark.lessons()])),
            "material": {name: spelt(array) for name, array in sorted(plan.material.items())},
            "leaf": leaves[0].decode(),
            "root": merkle_root([hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]).hex(),
            "keys": {purpose: sha256(mark.subkeys.key(purpose))[:32] for purpose in PURPOSES},
            "recorder": sha256(mark.signing_seed()),
            "placed": placed(mark, len(plan.taught)),
        }
    )


def runs(values):
    """Equal neighbours counted, which is shorter."""
    return [[value, len(list(equal))] for value, equal in itertools.groupby(values)]


def merkle_root(leaves):
    """RFC 9162, section 2.1.1."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def contents(path, passphrase):
    """What a saved watermark holds: its public line, and the name, dtype, shape and bytes of every secret array."""
    header, secret, _ = open_sealed(path.read_bytes(), passphrase, str(path))
    with np.load(io.BytesIO(secret), allow_pickle=False) as saved:
        arrays = {name: spelt(saved[name]) for name in saved.files}
    return {"header": {name: header[name] for name in header if name != "nonce"}, "arrays": arrays}


def sealed(path, passphrase):
    """The same, of the public line only what is not public."""
    held, public = contents(path, passphrase), wmplug.load(path, passphrase=passphrase).public
    return {**held, "header": {name: value for name, value in held["header"].items() if name not in public}}


MODES = ("append", "replace")
SLOTS = (0, 1, 2, 3, 1023, 1024, 10**6, 2**40 + 5, 2**63)


def placement(stream, pool, mode):
    """The tables that are drawn for a pool of so many rows, and what they put into some batches."""
    tables = Placement.draw(stream, pool, mode)
    return {
        "order": spelt(tables.order),
        "thresholds": spelt(tables.thresholds),
        "seed": sha256(str(tables.seed).encode()),
        "counts": [tables.count(slot, 64, 60_000) for slot in SLOTS],
        "places": [tables.place(slot, 32, 120_000).tolist() for slot in SLOTS],
        "few": [tables.place(slot, 8, 10_000).tolist() for slot in SLOTS],
        "slots": [str(tables.slot_of(fingerprint)) for fingerprint in (0, 1, 2**64 - 1)],
    }


# What is the same whatever the key, and what is not where inputs are made again with other last digits.
KEYLESS = ("form", "queries", "first", "candidates", "draw", "groups", "asked", "taught", "weighed")
BITS = ("inputs", "first", "lessons", "root")


def made_alike(found, case):
    """Of all facts those that follow by arithmetic alone, on whatever machine a watermark is made."""
    public = found["public"]
    if not case.same_id:
        bound = ("id", "root", "parameters", "evidence")
        return {name: found[name] for name in KEYLESS} | {name: public[name] for name in public if name not in bound}
    material = {n: a if n in DERIVED else a.rpartition(" ")[0] for n, a in found["material"].items()}
    if case.exact:
        return {**found, "material": material}
    leaf = {name: value for name, value in json.loads(found["leaf"]).items() if name != "x_sha256"}
    public = {name: value for name, value in public.items() if name != "root"}
    kept = {name: value for name, value in found.items() if name not in BITS}
    return {**kept, "material": material, "public": public, "leaf": leaf}


def placed(mark, pool):
    """Digests of the placements of a watermark; Keras draws one stream whatever the mode, the others one a mode."""
    if not pool:
        return None
    drawn = {mode: placement(stream_of(mark, "schedule", mode), pool, mode) for mode in MODES}
    drawn |= {f"keras {mode}": placement(stream_of(mark, "schedule"), pool, mode) for mode in MODES}
    return {name: sha256(canonical(one))[:32] for name, one in drawn.items()}


def tables():
    """The same for a key that is written out."""
    return {f"{mode} {pool}": placement(KeyStream(bytes(range(32))), pool, mode) for mode in MODES for pool in (1, 12)}


def numbers():
    """What a key stream gives in order, for a key that is written out."""
    stream = KeyStream(bytes(range(32)))
    return plain(
        {
            "below": stream.below(10, 12),
            "uniform": [one.hex() for one in stream.uniform(4).tolist()],
            "permutation": stream.permutation(12),
            "bytes": stream.bytes(8).hex(),
        }
    )


def entries(folder):
    """The entries of a register, as they are on record."""
    return [
        {"seq": one.seq, "type": one.type, "hash": one.hash, "body": one.body} for one in Register(folder).entries()
    ]


def changes(mark, carriers, labels):
    """What a scheme for data sets publishes of a set that is all carriers."""
    from wmplug.dataset.records import Record

    records = [Record(i, f"record {i}", one, int(y)) for i, (one, y) in enumerate(zip(carriers, labels, strict=True))]
    made = mark.scheme.changes(mark.triggers, records, len(records))
    return plain(
        {
            "labels": {str(index): label for index, label in sorted(made.labels.items())},
            "inputs": {str(index): seen(one) for index, one in sorted(made.inputs.items())},
            "added": [[one.after, seen(one.input), one.label] for one in made.added],
        }
    )
