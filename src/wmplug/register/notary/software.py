"""The software that a notary checked with, so that others can run the same check again."""

import hashlib
import inspect
import os
import platform
import sys
from pathlib import Path

import numpy as np
import rfc8785

import wmplug
from wmplug.keys.files import file_digest, files_of


def verifier(scheme: type) -> dict[str, str]:
    """The software that checked: version of wmplug, SHA-256 over its installed files, and of the scheme's file."""
    home = Path(wmplug.__file__).parent
    files = {
        os.fsencode(name).decode("utf-8", "backslashreplace"): file_digest(file)[0]
        for name, file in files_of(home)
        if "__pycache__" not in file.parts
    }
    return {
        "wmplug": wmplug.__version__,
        "sha256": hashlib.sha256(rfc8785.dumps(dict(files))).hexdigest(),
        "scheme_sha256": file_digest(Path(inspect.getfile(scheme)))[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": sys.platform,
    }
