"""The assets a register commits to, in words: training set, parameters, architecture, system, artwork."""

from collections.abc import Mapping
from typing import Any

from wmplug.register import Entry
from wmplug.register.history import QUERIES, logs_of
from wmplug.report import words
from wmplug.report.facts import Fact, Facts, ends_of

ASSETS = {
    "dataset.committed": "training set",
    "parameters.committed": "training parameters",
    "architecture.committed": "architecture",
    "system.committed": "finished system",
    "artwork.committed": "artwork",
}


def assets(facts: Facts) -> list[Fact]:
    """All assets that the owner committed to, without the states of a model at checkpoints."""
    ends = {saved.seq: live for live, saved in ends_of(facts)}
    kept = [
        entry
        for entry in facts.of(*ASSETS)
        if entry.type != "system.committed" or entry.seq in ends or "run" not in entry.body
    ]
    return [
        {
            "asset": "log of queries" if logs_of([entry]) else ASSETS[entry.type],
            "entry": entry.seq,
            "run": entry.body.get("run"),
            "class": entry.body.get("class") or ends.get(entry.seq, entry).body.get("class"),
            **_described(entry, ends.get(entry.seq, entry)),
            **facts.within(entry.seq),
        }
        for entry in kept
    ]


def _described(entry: Entry, live: Entry) -> Fact:
    try:
        fact = _DESCRIBE[entry.type](entry.body)
        if entry is not live:
            named = "" if entry.body["tensors"]["sha256"] == live.body["tensors"]["sha256"] else ", under other names"
            fact["text"] += f" The end of training (entry {live.seq}) found the same tensors in the live model{named}."
        return fact
    # The key of a training run may sign any body. A body that wmplug never writes must not hide the rest.
    except (KeyError, TypeError, ValueError, AttributeError):
        return {"text": "What its entry says cannot be read.", "digests": {}}


def _dataset(body: Mapping[str, Any]) -> Fact:
    if body.get("root") is None:
        why = {"stream": "it can be read only once, and training reads it"}.get(
            str(body.get("status")), str(body.get("reason", "it reads otherwise each time"))
        )
        instead = body.get("instead")
        return {"text": f"NOT RECORDED record by record: {why}.", "digests": _inner_root(instead)}
    if body.get("role") == QUERIES:
        queries = words.count(int(body["count"]), "query", "queries")
        return {"text": f"{queries}. One root fixes them; it shows none.", "digests": {"Merkle root": body["root"]}}
    records = words.count(int(body["count"]), "record")
    text = f"{records}. One root fixes the whole set, whatever its order; it shows nothing of it."
    return {"text": text, "digests": {"Merkle root": body["root"]}}


def _inner_root(instead: Any) -> dict[str, str]:
    found = isinstance(instead, Mapping) and instead.get("root")
    return {"Merkle root of the data below": str(found)} if found else {}


def _parameters(body: Mapping[str, Any]) -> Fact:
    text = "The settings of the training. Only their digest is shown here; the register holds them."
    if removed := words.rows(body.get("removed")):
        left = "and was" if removed == 1 else "and were"
        text += f" {words.count(removed, 'setting')} looked like a password or access token {left} left out before."
    return {"text": text, "digests": {"SHA-256": body["sha256"]}}


def _architecture(body: Mapping[str, Any]) -> Fact:
    size, git, code = body.get("parameters"), body.get("git"), body.get("code")
    digests = {"SHA-256": body["sha256"]}
    if isinstance(code, Mapping):
        digests["source file (SHA-256)"] = code["sha256"]
    if isinstance(git, Mapping):
        digests["git commit" + (" (with changes beside it)" if git.get("dirty") else "")] = git["commit"]
    built = "How the model is built" + ("" if size is None else f": {words.count(int(size), 'adjustable number')}")
    return {"text": f"{built}.", "digests": digests}


def _system(body: Mapping[str, Any]) -> Fact:
    files, tensors = body.get("files"), body.get("tensors")
    digests, text = {}, "The trained model."
    if isinstance(files, Mapping):
        single = len(files["digests"]) == 1
        digests["the file that was saved (SHA-256)"] = next(iter(files["digests"].values())) if single else None
        digests["the files that were saved (Merkle root)"] = None if single else files["root"]
        text += f" {words.count(int(files['count']), 'file')}."
    else:
        text += " It was looked at in memory: no file of it is recorded here."
    if isinstance(tensors, Mapping):
        digests["the tensors, whatever the file (SHA-256)"] = tensors["sha256"]
        text += f" {words.count(int(tensors['elements']), 'number')}; a change of the file format keeps their digest."
    return {"text": text, "digests": {name: digest for name, digest in digests.items() if digest}}


def _artwork(body: Mapping[str, Any]) -> Fact:
    parts = {"title": "title", "author": "made by", "created": "made", "licence": "licence"}
    stated = ", ".join(f"{label} {body[name]}" for name, label in parts.items() if body.get(name))
    text = f"A work used in the secret questions ({body.get('media_type')}). "
    return {"text": text + (f"The owner states: {stated}." if stated else ""), "digests": {"SHA-256": body["sha256"]}}


_DESCRIBE = {
    "dataset.committed": _dataset,
    "parameters.committed": _parameters,
    "architecture.committed": _architecture,
    "system.committed": _system,
    "artwork.committed": _artwork,
}
