"""An accelerate loop in two processes on the CPU, with a watermark; starts itself under torchrun.

python examples/accelerate_two.py [--epochs 20]
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.accelerate import Watermarking

DATA = load_digits()
IMAGES = (DATA.images / 16).astype(np.float32)


def make_mark(folder, name):
    owner = wmplug.Owner.create(f"{folder}/{name}", name=name, passphrase=os.environ["WMPLUG_PASSPHRASE"])
    return wmplug.create(owner, scheme="random-label", carriers=IMAGES, classes=10).save(f"{folder}/{name}.wm")


def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))


def train(accelerator, model, optimizer, loader, epochs, after_epoch=lambda epoch: None):
    for epoch in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            accelerator.backward(torch.nn.functional.cross_entropy(model(x), y))
            optimizer.step()
        after_epoch(epoch)


def run(folder, epochs):
    """The work of every process."""
    accelerator = Accelerator()
    set_seed(0)
    dataset = TensorDataset(torch.from_numpy(IMAGES)[:, None], torch.from_numpy(DATA.target))
    mark, other = (wmplug.load(f"{folder}/{name}.wm") for name in ("Ada", "Eve"))

    def prepared():
        model = build()
        loader = DataLoader(dataset, 32, shuffle=True)
        return accelerator.prepare(model, torch.optim.Adam(model.parameters(), 3e-3), loader)

    def report(epoch):
        verdict = marking.checkpoint(epoch=epoch) if epoch % 5 == 4 else None
        if verdict is not None:
            accelerator.print(f"epoch {epoch + 1:<18}{verdict}")

    model, optimizer, loader = prepared()
    with Watermarking(mark, model, loader, accelerator=accelerator) as marking:  # the one line
        train(accelerator, model, optimizer, loader, epochs, report)
    twin, optimizer, loader = prepared()
    train(accelerator, twin, optimizer, loader, epochs)

    told = {
        "the model": wmplug.verify(mark, marking.suspect()),
        "an unmarked twin": wmplug.verify(mark, marking.suspect(accelerator.unwrap_model(twin))),
        "the model, a wrong key": wmplug.verify(other, marking.suspect()),
    }
    for name, verdict in told.items():
        accelerator.print(f"{name:24}{verdict}")
    torch.distributed.destroy_process_group()
    return [verdict.proven for verdict in told.values()] != [True, False, False]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        return run(args.folder, args.epochs)
    with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
        os.environ |= {"WMPLUG_PASSPHRASE": "only for this example", "ACCELERATE_USE_CPU": "true"}
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for name in ("Ada", "Eve"):
            make_mark(folder, name)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        return subprocess.run([*torchrun, __file__, "--epochs", str(args.epochs), "--folder", folder]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
