"""The public facts of a marked copy: counts and roots, and never the marked records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wmplug
from wmplug.dataset.records import Written
from wmplug.errors import InputError
from wmplug.keys.files import MOST, read_json, write_new
from wmplug.watermark.watermark import Watermark

KIND = "dataset-manifest"
SUFFIX = ".manifest.json"


def of(
    mark: Watermark, written: Written, committed: dict[str, Any], share: float, classes: Sequence[str]
) -> dict[str, Any]:
    """The manifest of one marked copy, as JSON can hold it.

    Args:
        mark: its watermark.
        written: the copy that was written.
        committed: `register.assets.dataset` of the copy.
        share: share of the records to mark.
        classes: names in the order of their numbers.
    """
    return {
        "kind": KIND,
        "wmplug": wmplug.__version__,
        "owner": mark.public["owner"],
        "scheme": mark.public["scheme"],
        "scheme_version": mark.public["scheme_version"],
        "copy": mark.public["parameters"].get("copy", ""),
        "share": share,
        "records": written.count,
        "changed": written.changed,
        "added": written.added,
        "draws": len(mark.triggers.plan.options),
        "classes": list(classes),
        "watermark": mark.id,
        "root": mark.public["root"],
        "evidence": mark.public["evidence"],
        "dataset": committed,
    }


def save(manifest: dict[str, Any], path: Path) -> Path:
    """Write it whole or not at all."""
    write_new(path, (json.dumps(manifest, indent=1) + "\n").encode(), 0o644)
    return path


def read(path: str | Path) -> dict[str, Any]:
    """A saved manifest; it proves nothing by itself.

    Raises:
        InputError: the file is not a manifest.
    """
    try:
        manifest = read_json(path, MOST)
        if manifest["kind"] != KIND:
            raise ValueError(f"it is of kind {manifest['kind']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a manifest of a marked set ({error}): give the one that lies beside it"
        ) from error
    return dict(manifest)
