"""The plain loop keeps the contract of all adapters."""

import contextlib

import torch
from torch.utils.data import DataLoader, TensorDataset

from wmplug.testing import AdapterContract


def net_and_loader(images, labels):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    return net, DataLoader(TensorDataset(torch.tensor(images), torch.tensor(labels)), 50, shuffle=True)


def epoch(net, loader, optimizer):
    net.train()
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


class TestTorch(AdapterContract):
    adapter = "torch"

    def train(self, images, labels, watermark, folder):
        net, loader = net_and_loader(images, labels)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        with watermark(model=net, loader=loader, rate=0.2) if watermark else contextlib.nullcontext() as marking:
            for _ in range(30):
                epoch(net, loader, optimizer)
            torch.save(net, folder / "whole.pt")
            torch.save(net.state_dict(), folder / "net.pt")
            if marking is not None:
                marking.checkpoint(path=folder / "net.pt")
                torch.save(marking.state_dict(), folder / "marking.pt")
        return net

    def train_beside(self, images, labels, watermark):
        net, loader = net_and_loader(images, labels)
        _, other = net_and_loader(images, labels)
        with watermark(model=net, loader=loader):
            epoch(net, other, torch.optim.Adam(net.parameters()))

    def train_briefly(self, images, labels, watermark, looks):
        net, loader = net_and_loader(images[:100], labels[:100])
        optimizer, logged = torch.optim.Adam(net.parameters()), []
        with watermark(model=net, loader=loader, log=logged.append) as marking:
            for number in range(1, looks + 1):
                epoch(net, loader, optimizer)
                marking.checkpoint(step=2 * number, epoch=number)
                if marking.stopped:
                    break
        return logged


def test_it_carries_what_the_page_of_supported_things_says():
    from wmplug.adapters.torch.loop import TorchLoop

    assert TorchLoop.points >= {"samples", "logits"}
    assert TorchLoop.calls == {"classify"}
