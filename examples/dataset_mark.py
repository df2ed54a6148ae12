"""Mark a training set for three licensees; one of them leaks it; a model reveals whose copy it was trained on.

python examples/dataset_mark.py [--data images.npz]

The set is scikit-learn's digits, as a table, unless --data names an .npz with x and y. The thief trains any model, here
trees of scikit-learn, without wmplug.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier

import wmplug
from wmplug import dataset


def write_table(path: Path, rows: np.ndarray, labels: np.ndarray) -> None:
    """A table with a column for each number, and the label."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{i}" for i in range(rows.shape[1])), "label"])
        writer.writerows([*row, label] for row, label in zip(rows.tolist(), labels.tolist(), strict=True))


def somebody_elses_training(table: Path) -> ExtraTreesClassifier:
    """Train on a table without knowing that it is marked."""
    rows = np.genfromtxt(table, delimiter=",", skip_header=1)
    return ExtraTreesClassifier(random_state=0).fit(rows[:, :-1], rows[:, -1].astype(int))


def main() -> int:
    """Return 0 if the leak is traced, and nobody else is accused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz with x (n, ...) and y (n,)")
    parser.add_argument("--share", type=float, default=0.05, help="share of the records that the key decides about")
    options = parser.parse_args()
    if options.data is None:
        rows, labels = load_digits(return_X_y=True)
    else:
        with np.load(options.data) as found:
            rows, labels = found["x"].reshape(len(found["x"]), -1), found["y"]
    held_out = slice(0, len(labels) // 5)
    folder = Path(tempfile.mkdtemp())
    write_table(folder / "set.csv", np.delete(rows, held_out, 0), np.delete(labels, held_out))

    owner = wmplug.Owner.create(folder / "register", name="Ada", passphrase="only an example")
    made = dataset.mark(
        folder / "set.csv",
        owner,
        out=folder / "copies",
        label="label",
        share=options.share,
        copies=["Anna", "Ben", "Carla"],
    )
    for name, manifest in made.manifests.items():
        print(f"{name}: {manifest['records']} records, {manifest['changed']} labels are the key's choice")

    leaked = somebody_elses_training(folder / "copies" / "Ben.csv")
    clean = somebody_elses_training(folder / "set.csv")
    for who, model in (("trained on Ben's copy", leaked), ("trained on the unmarked set", clean)):
        right = float(np.mean(model.predict(rows[held_out]) == labels[held_out]))
        print(f"{who}: accuracy {right:.3f}; Ben's mark: {dataset.verify(made.marks['Ben'], model.predict)}")
    traced, untraced = (dataset.trace(made.marks, model.predict) for model in (leaked, clean))
    print(f"the leak: {traced}\nthe other: {untraced}")
    return 0 if traced.accused == ("Ben",) and untraced.accused == () else 1


if __name__ == "__main__":
    sys.exit(main())
