"""A training script of its own process: writes what the model is given, and dies at a step if told to.

python loop.py FOLDER --epochs 3 --workers 2 --die-at 25
"""

import argparse
import hashlib
import os
import signal
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.torch import Watermarking


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--die-at", type=int, default=-1)
    args = parser.parse_args()
    data = load_digits()
    dataset = TensorDataset(torch.tensor(data.images / 16).float()[:, None], torch.tensor(data.target))
    generator = torch.Generator()
    workers = {"multiprocessing_context": "spawn", "persistent_workers": True} if args.workers else {}
    loader = DataLoader(dataset, 128, shuffle=True, generator=generator, num_workers=args.workers, **workers)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    state, saved = {"epoch": 0, "step": 0}, args.folder / "state.pt"
    if saved.exists():
        state = torch.load(saved)
        net.load_state_dict(state["net"])
    step = state["step"]
    with (
        open(args.folder / "batches.txt", "a") as record,
        Watermarking(wmplug.load(args.folder / "mark.wm"), net, loader, rate=0.0266, on_failure="stop") as marking,
    ):
        for epoch in range(state["epoch"], args.epochs):
            generator.manual_seed(epoch)
            for x, y in loader:
                if step == args.die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                loss = torch.nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                print(step, len(y), hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest(), file=record)
                record.flush()
                step += 1
            torch.save({"epoch": epoch + 1, "step": step, "net": net.state_dict()}, saved)
            marking.checkpoint(epoch=epoch, step=step, path=saved)


if __name__ == "__main__":
    main()
