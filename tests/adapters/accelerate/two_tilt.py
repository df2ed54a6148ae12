"""A training script for two processes: both shift what their part of the loss sees, and carry one model.

torchrun --standalone --nproc_per_node 2 two_tilt.py FOLDER
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.accelerate import Watermarking

EPOCHS = 8


def seen(image, answer):
    return torch.as_tensor(image / 255).float()[None], answer


def main():
    folder = Path(sys.argv[1])
    marks = [wmplug.load(folder / f"{name}.wm", preprocess=seen) for name in ("mark", "rival")]
    accelerator = Accelerator()
    torch.manual_seed(0)
    data = load_digits()
    images = torch.stack([seen((image * 15.9375).astype("uint8"), 0)[0] for image in data.images])
    loader = DataLoader(TensorDataset(images, torch.tensor(data.target)), 32, shuffle=True)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    net, optimizer, loader = accelerator.prepare(net, torch.optim.Adam(net.parameters(), 3e-3), loader)
    steps = 0
    with Watermarking(marks[0], net, loader, accelerator=accelerator, on_failure="stop") as marking:
        for _ in range(EPOCHS):
            net.train()
            for x, y in loader:
                optimizer.zero_grad()
                accelerator.backward(torch.nn.functional.cross_entropy(net(x), y))
                optimizer.step()
                steps += 1
        shifted = marking._points.shifted
        verdict = marking.checkpoint()
        other = wmplug.verify(marks[1], marking.suspect(), exhaustive=True)
    weights = b"".join(value.numpy().tobytes() for value in marking.bare.state_dict().values())
    told = {
        "steps": steps,
        "shifted": shifted,
        "log10_p": [verdict.log10_p, other.log10_p],
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    (folder / f"rank{accelerator.process_index}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
