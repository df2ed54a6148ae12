"""The model as a bill of materials: CycloneDX 1.6 JSON with a model card; public digests only.

It holds only the digest of the training parameters: they may be a trade secret, and a bill of materials goes to others.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from wmplug.errors import RegisterError
from wmplug.report.facts import Fact

_PACKAGES = {"wmplug", "torch", "transformers", "accelerate", "keras", "jax", "tensorflow", "numpy"}
_NO_MODEL = (
    "the register records no model, so no bill of materials can be made: record a training run first, or a finished "
    "system (`wmplug register commit system PATH`)"
)


def bom(document: Fact) -> Fact:
    """A CycloneDX 1.6 document for the contents of a dossier.

    The same register gives the same document: its serial number follows from the last entry's hash (RFC 9562, version
    5), its time is that entry's claimed one.

    Args:
        document: as `dossier.gather` returns it.

    Raises:
        RegisterError: the register does not hold, or records no model.
    """
    if document["attestation"]["status"] == "refused":
        raise RegisterError(
            "the register does not hold, so nothing public is made of it: see the dossier for the reasons"
        )
    runs = [run for run in document["runs"] if run["finished_entry"] is not None]
    ran = {run["system"] for run in runs}
    alone = [asset for asset in document["assets"] if asset["asset"] == "finished system" and asset["entry"] not in ran]
    models = [_model(document, run, _asset(document, run["system"])) for run in runs]
    models += [_model(document, None, asset) for asset in alone]
    if not models:
        raise RegisterError(_NO_MODEL)
    sets = [_dataset(asset) for asset in document["assets"] if asset["asset"] == "training set"]
    frameworks = {name: version for run in runs for name, version in run["versions"].items() if name in _PACKAGES}
    parts = [*models, *sets, *(_framework(name, version) for name, version in sorted(frameworks.items()))]
    who = document["who"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, 'urn:wmplug:head:' + str(who['head']))}",
        "version": 1,
        "metadata": {
            "timestamp": document["events"][-1]["claimed_time"],
            "tools": {"components": [{"type": "application", "name": "wmplug", "version": document["wmplug"]}]},
            "properties": _properties(
                register=who["register"], head=who["head"], attestation=document["attestation"]["status"]
            ),
        },
        "components": parts,
        "dependencies": [{"ref": part["bom-ref"], "dependsOn": _used(part)} for part in models],
    }


def encode(document: Fact) -> bytes:
    """The JSON file."""
    return (json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _asset(document: Fact, entry: int | None) -> Fact | None:
    return next((asset for asset in document["assets"] if asset["entry"] == entry), None)


def _properties(**values: Any) -> list[dict[str, str]]:
    return [{"name": f"wmplug:{name}", "value": str(value)} for name, value in values.items() if value is not None]


def _hashes(digest: str | None) -> list[dict[str, str]]:
    return [] if digest is None else [{"alg": "SHA-256", "content": digest}]


def _model(document: Fact, run: Fact | None, system: Fact | None) -> Fact:
    """One finished system; `wmplug:hash-of` names the object of its hash, and other digests are properties."""
    used: Mapping[str, Any] = run["assets"] if run else {}
    architecture, parameters = (_asset(document, used.get(part)) for part in ("architecture", "parameters"))
    digests: Mapping[str, str] = system["digests"] if system else {}
    kind, digest = next(iter(digests.items()), (None, None))
    others = {name: other for name, other in digests.items() if name != kind}
    mark = next((one for one in document["watermarks"] if run and one["watermark"] == run["watermark"]), None)
    number = run["run"] if run else f"entry-{system and system['entry']}"
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model-{number}",
        "name": (architecture and architecture["class"]) or "model",
        "hashes": _hashes(digest),
        "modelCard": _card(document, run, mark, architecture),
        "properties": _properties(
            **{
                "hash-of": kind,
                **others,
                "run": run and run["run"],
                "adapter": run and run["adapter"],
                "watermark:root": mark and mark.get("root"),
                "watermark:scheme": mark and mark.get("scheme"),
                "parameters:sha256": parameters and parameters["digests"].get("SHA-256"),
                "architecture:sha256": architecture and architecture["digests"].get("SHA-256"),
            }
        ),
    }


def _card(document: Fact, run: Fact | None, mark: Fact | None, architecture: Fact | None) -> Fact:
    used: Mapping[str, Any] = run["assets"] if run else {}
    parameters: Fact = {"approach": {"type": "supervised"}, "task": "classification"}
    if architecture is not None and architecture["class"]:
        parameters["modelArchitecture"] = architecture["class"]
    if used.get("dataset") is not None:
        parameters["datasets"] = [{"ref": f"data-{used['dataset']}"}]
    last = next((look for look in reversed(run["looks"] if run else []) if look["state"]), None)
    metrics = []
    if last is not None:
        metrics = [
            {"type": "log10 of the p-value of the watermark", "value": f"{last['log10_p']:.2f}", "slice": "triggers"}
        ]
    limits = ["The records about this model are " + document["attestation"]["headline"] + "."]
    if mark is not None:
        limits.append(
            "The model carries a watermark: it gives secret answers to secret inputs. Elsewhere it is meant to answer "
            "as without."
        )
    return {
        "modelParameters": parameters,
        **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        "considerations": {
            "useCases": ["Proof that a copy of this model is a copy, by its watermark."] if mark else [],
            "technicalLimitations": limits,
        },
    }


def _dataset(asset: Fact) -> Fact:
    kind, digest = next(iter(asset["digests"].items()), (None, None))
    return {
        "type": "data",
        "bom-ref": f"data-{asset['entry']}",
        "name": f"training set (entry {asset['entry']})",
        "description": asset["text"],
        "hashes": _hashes(digest),
        "data": [{"type": "dataset", "name": asset["class"] or "training set"}],
        "properties": _properties(**{"hash-of": kind}),
    }


def _framework(name: str, version: str) -> Fact:
    known = {"type": "framework", "bom-ref": f"pkg:pypi/{name}", "name": name}
    if version == "unknown":
        return known
    return {**known, "version": version, "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}"}


def _used(model: Fact) -> list[str]:
    return [one["ref"] for one in model["modelCard"]["modelParameters"].get("datasets", [])]
