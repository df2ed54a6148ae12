"""A training script for two processes: for each way to feed them, what each was given and told.

torchrun --standalone --nproc_per_node 2 two.py FOLDER
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.accelerate import Watermarking


def train(folder, mark, split, dispatch, after):
    config = DataLoaderConfiguration(split_batches=split, dispatch_batches=dispatch, use_seedable_sampler=True)
    accelerator = Accelerator(dataloader_config=config)
    torch.manual_seed(0)
    data = load_digits()
    dataset = TensorDataset(torch.tensor(data.images / 16).float()[:, None], torch.tensor(data.target))
    loader = DataLoader(dataset, 64, shuffle=True)
    # The norm's running means differ between processes: verdicts may not.
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    if after:
        net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    lessons = {x.tobytes() for x, _ in mark.lessons()}
    sizes, triggers, logged = [], [], []
    with Watermarking(
        mark, net, loader, accelerator=accelerator, rate="auto", on_failure="stop", log=logged.append
    ) as marking:
        if not after:
            net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
        for x, y in loader:
            sizes.append(len(y))
            triggers.append(sum(row[0].numpy().tobytes() in lessons for row in x))
            optimizer.zero_grad()
            accelerator.backward(torch.nn.functional.cross_entropy(net(x), y))
            optimizer.step()
        verdict = marking.checkpoint(step=len(sizes), path=folder / "net.pt")
    rate = marking.state_dict()["rate"]
    told = {"sizes": sizes, "triggers": triggers, "verdict": json.loads(verdict.to_json()), "rate": rate}
    return {**told, "logged": len(logged)}, accelerator.process_index


def main():
    folder, told = Path(sys.argv[1]), {}
    mark = wmplug.load(folder / "mark.wm")
    for split, dispatch, after in itertools.product((False, True), repeat=3):
        told[f"{split} {dispatch} {after}"], rank = train(folder, mark, split, dispatch, after)
    (folder / f"rank{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
