"""`wmplug.json` beside a checkpoint: the watermark's public part and what was found; nothing secret."""

import json
from pathlib import Path
from typing import Any

from wmplug.claim.verdict import Verdict
from wmplug.keys.files import write_new
from wmplug.watermark.watermark import Watermark

NAME = "wmplug.json"


def place(path: Path) -> Path:
    """The sidecar in a folder, or next to a file, in a folder that is made where it is missing."""
    folder = path if path.is_dir() else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder / NAME


def write(file: Path, mark: Watermark, **found: Any) -> None:
    """Write it whole or not at all; verdicts among `found` become JSON objects."""
    told = {name: json.loads(one.to_json()) if isinstance(one, Verdict) else one for name, one in found.items()}
    write_new(file, (json.dumps({"watermark": mark.public, **told}, indent=1) + "\n").encode(), 0o644)
