"""The models of examples/dossier.sh: the owner's, trained with the callback, a stolen copy, and three strangers'.

python examples/dossier_models.py carriers FOLDER     the digits from which triggers are made
python examples/dossier_models.py train FOLDER        FOLDER/{own,suspect,control1,control2,control3}
"""

import sys
from pathlib import Path

import numpy as np

import wmplug
from wmplug.cli.demo import models as digits

EPOCHS = 14


def carriers(folder: Path) -> None:
    """The owner's pictures and labels, as `wmplug create` reads them."""
    train, _, _ = digits.parts(0)
    np.savez(folder / "carriers.npz", carriers=train.images, labels=train.labels)


def train(folder: Path) -> None:
    """One callback in the owner's training; nothing in the others."""
    mark = wmplug.load(folder / "mark.wm", preprocess=digits.example)
    own, other, test = digits.parts(0)
    scratch = folder / "checkpoints"
    model, _ = digits.train(own, test, scratch, seed=0, epochs=EPOCHS, mark=mark)
    digits.save(model, folder / "own")
    copy, _ = digits.train(other, test, scratch, seed=1, epochs=10, rate=5e-4, start=model)
    digits.save(copy, folder / "suspect")
    for number in (1, 2, 3):
        stranger, _ = digits.train(other, test, scratch, seed=10 + number, epochs=EPOCHS)
        digits.save(stranger, folder / f"control{number}")


if __name__ == "__main__":
    {"carriers": carriers, "train": train}[sys.argv[1]](Path(sys.argv[2]))
