"""An API that returns labels only is cloned into another framework's model, and the clone is detected.

    python examples/clone.py

The owner trains a torch model on scikit-learn's digits with a watermark against theft and cloning. The thief sends the
API other pictures (shifted digits), keeps its labels, and trains a Keras model on them, without ever seeing a weight or
a score. KERAS_BACKEND chooses the thief's backend (torch here, unless it is set). Needs: wmplug[torch,keras,clones].
"""

import os
import tempfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.torch import Watermarking


def example(image, answer):
    return torch.as_tensor(image, dtype=torch.float32)[None] / 255, answer


def shifted(images, seed):
    """Every picture moved by a pixel, in a direction of its own."""
    moves = np.random.default_rng(seed).integers(-1, 2, (len(images), 2))
    return np.stack([np.roll(image, move, (0, 1)) for image, move in zip(images, moves, strict=True)])


def train(images, labels, mark):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(1024, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    dataset = TensorDataset(torch.as_tensor(images, dtype=torch.float32)[:, None] / 255, torch.as_tensor(labels))
    loader, optimizer = DataLoader(dataset, 32, shuffle=True), torch.optim.Adam(model.parameters(), 1e-3)
    with Watermarking(mark, model, loader) as marking:  # the one line
        for _ in range(40):
            model.train()
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        marking.checkpoint()
    return model.eval()


def keras_model(images, labels, seed):
    """The model that the thief trains, or anybody else."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images.astype("float32"), labels, batch_size=32, epochs=40, verbose=0)
    return lambda pictures: model.predict(np.asarray(pictures, "float32"), verbose=0)


def main():
    data = load_digits()
    images, labels = (data.images * 15.9375).astype(np.uint8), data.target
    with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
        owner = wmplug.Owner.create(f"{folder}/ada", name="Ada", passphrase="only for this example")
    # Digits leave little freedom, so the shift is larger than usual.
    mark = wmplug.create(
        owner,
        against="theft+cloning",
        delta=1.0,
        directions=20,
        blends=5000,
        carriers=images,
        labels=labels,
        classes=10,
        preprocess=example,
    )
    model = train(images, labels, mark)

    def api(pictures):
        """The labels, which are all that the thief ever sees."""
        with torch.no_grad():
            return model(torch.as_tensor(np.asarray(pictures), dtype=torch.float32)[:, None] / 255).argmax(1).numpy()

    queries = np.concatenate([shifted(images, seed) for seed in range(4)])
    clone = keras_model(queries, api(queries), seed=1)
    independent = keras_model(images, labels, seed=2)
    told = {
        "the model": wmplug.verify(mark, model),
        "the API": wmplug.verify(mark, api),
        "a clone of the API": wmplug.verify(mark, clone),
        "an independent model": wmplug.verify(mark, independent),
    }
    for name, verdict in told.items():
        print(f"{name:24}{verdict}")
    found = [verdict.state != "inconclusive" for verdict in told.values()]
    return found != [True, True, True, False]


if __name__ == "__main__":
    raise SystemExit(main())
