"""Makes the fixture of a release: `python make.py FOLDER` at that release, once; it is never made again.

A later wmplug has to open what an earlier one wrote: tests/test_frozen.py does, for every folder here.
"""

import sys
from pathlib import Path

import numpy as np

import wmplug
from wmplug.register import Register
from wmplug.training.record import Run

PASSPHRASE = "frozen"


def carriers() -> np.ndarray:
    """(60, 6, 6) uint8, by arithmetic alone, so that they are the same for ever."""
    return (np.arange(60 * 36, dtype=np.int64) ** 2 % 251).astype(np.uint8).reshape(60, 6, 6)


def main() -> None:
    folder = Path(sys.argv[1]) / wmplug.__version__
    owner = wmplug.Owner.create(folder / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = wmplug.create(owner, scheme="random-label", carriers=carriers(), classes=10, triggers=12)
    mark.save(folder / "mark.wm")
    Run(mark, "plain").start(data=carriers(), arguments={"lr": 0.1}, model=object())
    print(Register(owner.path).head)


if __name__ == "__main__":
    main()
