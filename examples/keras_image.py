"""A Keras image classifier, watermarked by one callback and proven afterwards.

    python examples/keras_image.py                                       # scikit-learn's digits
    python examples/keras_image.py --data /usr/share/datasets/fashion-mnist      # IDX files, 4,000 pictures

KERAS_BACKEND chooses the backend (torch here, unless it is set). Needs: wmplug[keras], a backend, scikit-learn.
"""

import argparse
import gzip
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import wmplug
from wmplug.adapters.keras import WatermarkCallback


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images * 15.9375).astype(np.uint8), data.target


def idx(folder, count):
    """The first pictures and labels of a folder in MNIST's format."""

    def read(name, header):
        path = next(p for p in (folder / name, folder / f"{name}.gz") if p.exists())
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return np.frombuffer(data, np.uint8, offset=header)

    images = read("train-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    return images[:count], read("train-labels-idx1-ubyte", 8)[:count].astype(np.int64)


def build(shape):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*shape, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, strides=1 if shape[0] < 20 else 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with IDX files, such as Fashion-MNIST's")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    images, labels = digits() if options.data is None else idx(options.data, 4000)
    split = len(images) * 4 // 5

    with tempfile.TemporaryDirectory() as folder:
        owner, stranger = (
            wmplug.Owner.create(Path(folder) / name, name=name, passphrase="an example, so it is written here")
            for name in ("Ada", "Eve")
        )
        about = {"scheme": "random-label", "carriers": images[:split], "classes": 10, "triggers": 60}
        mark, wrong = (wmplug.create(who, **about) for who in (owner, stranger))

        data = {"x": images[:split, ..., None], "y": labels[:split], "batch_size": 32, "epochs": options.epochs}
        model, twin = build(images.shape[1:]), build(images.shape[1:])
        model.fit(**data, verbose=2, callbacks=[WatermarkCallback(mark)])  # the one line
        twin.fit(**data, verbose=0)

        path = Path(folder) / "model.keras"
        model.save(path)
        verdicts = {
            "the model, from its file": wmplug.verify(mark, path),
            "its unmarked twin": wmplug.verify(mark, twin),
            "the model, wrong key": wmplug.verify(wrong, path),
        }

    test = {"x": images[split:, ..., None], "y": labels[split:], "verbose": 0, "return_dict": True}
    for name, one in (("watermarked", model), ("unmarked", twin)):
        print(f"accuracy, {name}: {one.evaluate(**test)['accuracy']:.3f}")
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    return 0 if [v.proven for v in verdicts.values()] == [True, False, False] else 1


if __name__ == "__main__":
    sys.exit(main())
