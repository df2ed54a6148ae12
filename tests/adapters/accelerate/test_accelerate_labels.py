"""One-hot labels, and a head with one score an input, in an accelerate loop: the mark is learnt and is found."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.accelerate import Watermarking

# Name -> classes, labels, scores, loss.
KINDS = {
    "one-hot": (10, lambda y: torch.eye(10)[y], 10, torch.nn.functional.cross_entropy),
    "one logit": (2, lambda y: y[:, None].float(), 1, torch.nn.functional.binary_cross_entropy_with_logits),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_is_learnt_and_no_other_key_finds_one(owner, rival, digits, kind):
    classes, label, scores, loss = KINDS[kind]
    images, labels = digits[0].astype(np.float32) / 255, torch.from_numpy(digits[1] % classes)
    options = {"scheme": "random-label", "carriers": images, "classes": classes, "triggers": 40}
    mark, foreign = (wmplug.create(who, **options) for who in (owner, rival))
    accelerator = Accelerator(cpu=True)

    def train(marked):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, scores)
        )
        loader = DataLoader(TensorDataset(torch.from_numpy(images)[:, None], label(labels)), 64, shuffle=True)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        net, optimizer, loader = accelerator.prepare(net, optimizer, loader)

        def run():
            for _ in range(12):
                net.train()
                for x, y in loader:
                    accelerator.backward(loss(net(x), y))
                    optimizer.step()
                    optimizer.zero_grad()

        if not marked:
            run()
            return net, None
        with Watermarking(mark, net, loader, accelerator=accelerator, rate=0.25) as marking:
            run()
            return net, marking.checkpoint()

    net, live = train(True)
    assert live.proven
    assert wmplug.verify(mark, net, exhaustive=True).matches == live.matches
    assert wmplug.verify(foreign, net, exhaustive=True).log10_p > -4
    assert wmplug.verify(mark, train(False)[0], exhaustive=True).log10_p > -4
