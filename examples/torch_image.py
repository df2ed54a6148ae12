"""A plain torch loop with a watermark: scikit-learn's digits, or any images and labels in an .npz.

python examples/torch_image.py [--data FILE.npz] [--epochs 20]
"""

import argparse
import tempfile

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.torch import Watermarking


def read(path):
    """(n, H, W) images in 0..1 and (n,) labels."""
    if path is None:
        from sklearn.datasets import load_digits

        data = load_digits()
        return (data.images / 16).astype(np.float32), data.target
    data = np.load(path)
    return (data["images"] / 255).astype(np.float32), data["labels"]


def build(height, width, classes):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * (height // 2) * (width // 2), 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, classes),
    )


def train(model, loader, epochs, after_epoch=lambda epoch: None):
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(epochs):
        model.train()
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after_epoch(epoch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="an .npz with images (n, H, W) uint8 and labels (n,); digits by default")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    images, labels = read(args.data)
    classes = int(labels.max()) + 1
    dataset = TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(labels))

    with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
        owner = wmplug.Owner.create(f"{folder}/ada", name="Ada", passphrase="only for this example")
        rival = wmplug.Owner.create(f"{folder}/eve", name="Eve", passphrase="only for this example")
    marks = [
        wmplug.create(o, scheme="random-label", carriers=images, labels=labels, classes=classes) for o in (owner, rival)
    ]

    def report(epoch):
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1:<18}{marking.checkpoint(epoch=epoch)}")

    model, twin = build(*images.shape[1:], classes), build(*images.shape[1:], classes)
    loader = DataLoader(dataset, 64, shuffle=True)
    with Watermarking(marks[0], model, loader) as marking:  # the one line
        train(model, loader, args.epochs, report)
    train(twin, loader, args.epochs)

    told = {
        "the model": wmplug.verify(marks[0], marking.suspect()),
        "an unmarked twin": wmplug.verify(marks[0], marking.suspect(twin)),
        "the model, a wrong key": wmplug.verify(marks[1], marking.suspect()),
    }
    for name, verdict in told.items():
        print(f"{name:24}{verdict}")
    return [verdict.proven for verdict in told.values()] != [True, False, False]


if __name__ == "__main__":
    raise SystemExit(main())
