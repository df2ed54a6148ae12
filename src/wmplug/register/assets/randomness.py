"""Random states: reading a training set must not change the next draws of training."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def kept_random_states() -> Iterator[Callable[[], bool]]:
    """Restore the global random states of Python, NumPy and torch at the end of the block.

    Yields:
        A function that returns whether anything drew from them since.
    """
    python, numpy, torch = random.getstate(), np.random.get_state(legacy=False), sys.modules.get("torch")
    cpu = torch.get_rng_state() if torch else None
    gpus = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    before = _fingerprint(torch)
    try:
        yield lambda: _fingerprint(torch) != before
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch:
            torch.set_rng_state(cpu)
        if torch and gpus is not None:
            torch.cuda.set_rng_state_all(gpus)


def _fingerprint(torch: Any) -> bytes:
    cpu = torch.get_rng_state().numpy().tobytes() if torch else b""
    return pickle.dumps((random.getstate(), np.random.get_state(legacy=False), cpu))
