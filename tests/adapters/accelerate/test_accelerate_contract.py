"""The accelerate loop keeps the contract of all adapters."""

import contextlib

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from wmplug.testing import AdapterContract


class Tracker:
    name = "seen"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self):
        self.seen = []

    def log(self, values, step=None, **kwargs):
        self.seen.append(values)


def prepared(images, labels):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    loader = DataLoader(TensorDataset(torch.tensor(images), torch.tensor(labels)), 50, shuffle=True)
    return accelerator, *accelerator.prepare(net, torch.optim.Adam(net.parameters(), 3e-3), loader)


def epoch(accelerator, net, optimizer, loader):
    net.train()
    for x, y in loader:
        optimizer.zero_grad()
        accelerator.backward(torch.nn.functional.cross_entropy(net(x), y))
        optimizer.step()


class TestAccelerate(AdapterContract):
    adapter = "accelerate"

    def train(self, images, labels, watermark, folder):
        accelerator, net, optimizer, loader = prepared(images, labels)
        options = {"model": net, "loader": loader, "accelerator": accelerator, "rate": 0.2}
        with watermark(**options) if watermark else contextlib.nullcontext() as marking:
            for _ in range(30):
                epoch(accelerator, net, optimizer, loader)
            if marking is not None:
                accelerator.register_for_checkpointing(marking)
                marking.checkpoint(path=folder / "net.pt")
            accelerator.save_state(folder / "saved")
        return net

    def train_beside(self, images, labels, watermark):
        accelerator, net, optimizer, loader = prepared(images, labels)
        _, _, _, other = prepared(images, labels)
        with watermark(model=net, loader=loader, accelerator=accelerator):
            epoch(accelerator, net, optimizer, other)

    def train_briefly(self, images, labels, watermark, looks):
        accelerator, net, optimizer, loader = prepared(images[:100], labels[:100])
        accelerator.trackers = [Tracker()]
        with watermark(model=net, loader=loader, accelerator=accelerator) as marking:
            for number in range(1, looks + 1):
                epoch(accelerator, net, optimizer, loader)
                marking.checkpoint(step=2 * number, epoch=number)
                if marking.stopped:
                    break
        return accelerator.trackers[0].seen


def test_it_carries_what_the_page_of_supported_things_says():
    from wmplug.adapters.accelerate import AccelerateLoop

    assert AccelerateLoop.points >= {"samples", "logits"}
    assert AccelerateLoop.calls == {"classify"}
