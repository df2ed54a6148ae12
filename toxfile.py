"""Where nobody comes back to an environment, its 1.5 GB go when its commands have ended."""

import os
import shutil
from typing import Any

from tox.plugin import impl
from tox.tox_env.api import ToxEnv


@impl
def tox_after_run_commands(tox_env: ToxEnv, exit_code: int, outcomes: list[Any]) -> None:
    """Removes the environment, under CI only."""
    if os.environ.get("CI"):
        shutil.rmtree(tox_env.env_dir, ignore_errors=True)
