"""What tox is told beside tox.ini: where uv finds packages, and that environments go when nobody comes back to them."""

import ast
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from tox.plugin import impl
from tox.tox_env.api import ToxEnv

_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
}


@impl
def tox_add_option(parser: ArgumentParser) -> None:
    """Gives uv, which does not read them, pip's settings of where packages lie: of its files and of PIP_ variables."""
    settings = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for line in settings.splitlines():
        name, _, value = line.partition("=")
        variable, between = _UV.get(name.rpartition(".")[2], ("", ""))
        if variable:
            os.environ.setdefault(variable, between.join(ast.literal_eval(value).split()))
    os.environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # of all places, as pip does


@impl
def tox_after_run_commands(tox_env: ToxEnv, exit_code: int, outcomes: list[Any]) -> None:
    """Removes the environment, under CI only: 1.5 GB where uv cannot link to what it keeps."""
    if os.environ.get("CI"):
        shutil.rmtree(tox_env.env_dir, ignore_errors=True)
