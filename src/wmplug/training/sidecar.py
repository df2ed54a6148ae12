"""`wmplug.json` beside a checkpoint: the watermark's public part and the verdicts; nothing secret."""

import json
from pathlib import Path
from typing import Any

from wmplug.claim.verdict import Verdict
from wmplug.keys.files import write_new
from wmplug.watermark.watermark import Watermark

NAME = "wmplug.json"


def place(path: Path) -> Path:
    """The sidecar's path in a folder, or next to a file; a missing folder is made."""
    folder = path if path.is_dir() else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder / NAME


def write(file: Path, mark: Watermark, **results: Any) -> None:
    """Write it whole or not at all; verdicts among `results` become JSON objects."""
    written = {name: json.loads(v.to_json()) if isinstance(v, Verdict) else v for name, v in results.items()}
    write_new(file, (json.dumps({"watermark": mark.public, **written}, indent=1) + "\n").encode(), 0o644)
