"""tilt of texts in a plain torch loop: looked up from the token ids of the batch."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import wmplug
from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.torch.points import TorchPoints
from wmplug.errors import InjectionError
from wmplug.schemes.tilt import Tilt

EPOCHS = 12


class Bag(torch.nn.Module):
    """The mean of the tokens' embeddings."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(242, 64, padding_idx=0)
        self.head = torch.nn.Linear(64, 4)

    def forward(self, ids):
        return self.head(self.embed(ids).sum(1) / (ids > 0).sum(1, keepdim=True).clamp(min=1))


def collate(examples):
    ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in examples], batch_first=True)
    return ids, torch.tensor([label for _, label in examples])


@pytest.fixture(scope="module")
def marks(owner, rival, topics, tokens):
    texts, labels = topics
    scheme = Tilt(delta=1.0, directions=12, blends=3000)
    options = {"classes": 4, "preprocess": lambda text, answer: (torch.tensor(tokens(text)), answer)}
    return [wmplug.create(who, scheme=scheme, carriers=texts, labels=labels, **options) for who in (owner, rival)]


@pytest.fixture(scope="module")
def examples(marks, topics):
    return [marks[0].preprocess(text, int(label)) for text, label in zip(*topics, strict=True)]


def loader_of(examples):
    return DataLoader(examples, 32, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(0))


def made():
    torch.manual_seed(0)
    return Bag()


def train(net, loader):
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(EPOCHS):
        net.train()
        for ids, labels in loader:
            loss = torch.nn.functional.cross_entropy(net(ids), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def asked(net, mark):
    return ModuleSuspect(net, preprocess=mark.preprocess, forward=lambda module, given: module(collate(given)[0]))


def test_the_model_carries_it_and_nobody_else_is_accused(marks, examples):
    net, twin, loader = made(), made(), loader_of(examples)
    with Watermarking(marks[0], net, loader) as marking:
        train(net, loader)
        verdict = marking.checkpoint()
    train(twin, loader_of(examples))
    assert verdict.proven
    assert verdict.log10_p < -8
    assert wmplug.verify(marks[1], asked(net, marks[1]), exhaustive=True).log10_p > -4
    assert wmplug.verify(marks[0], asked(twin, marks[0]), exhaustive=True).log10_p > -4


def test_the_loss_sees_logits_less_the_keyed_shift(marks, examples):
    mark, net = marks[0], made()
    points = TorchPoints(mark, net)
    points.install(asked(net, mark))
    ids, _ = collate(examples[:40])
    with torch.no_grad():
        trained, served = net.train()(ids), net.eval()(ids)
    points.remove()
    constants = mark.scheme.constants(mark.triggers, ids.numpy())
    wanted = mark.scheme.shift(np, constants, ids.numpy(), served.numpy())
    assert np.abs(wanted - served.numpy()).mean() > 0.2
    np.testing.assert_allclose(trained, wanted, atol=1e-4)


def test_features_of_the_owner_s_own_take_part(owner, marks, topics, tokens):
    def features(ids):
        """Of NumPy arrays when the watermark is made, of tensors in training."""
        ids = torch.as_tensor(ids)
        known = (ids > 0).sum(1, keepdim=True)
        return torch.cat([((ids % k == 1) & (ids > 0)).sum(1, keepdim=True) / known for k in range(2, 10)], 1)

    scheme = Tilt(delta=1.0, directions=6, blends=500, pool=marks[0].scheme.pool, features=features)
    options = {"classes": 4, "preprocess": marks[0].preprocess}
    mark, net = wmplug.create(owner, scheme=scheme, carriers=topics[0], labels=topics[1], **options), made()
    points = TorchPoints(mark, net)
    points.install(asked(net, mark))
    ids, _ = collate([mark.preprocess(text, 0) for text in topics[0][:40]])
    with torch.no_grad():
        shift = net.eval()(ids) - net.train()(ids)
    points.remove()
    plan = mark.triggers.plan
    z = np.clip((features(ids).numpy() - plan.material["mean"]) @ plan.material["basis"], -2.5, 2.5)
    wanted = z @ mark.triggers.signs.reshape(4, 6).T / np.sqrt(6)
    np.testing.assert_allclose(shift, wanted, atol=1e-4)
    assert np.abs(wanted).mean() > 0.2


def test_a_model_that_is_given_vectors_is_refused(owner, marks, topics, tokens):
    options = {"classes": 4, "preprocess": lambda text, answer: (torch.tensor(tokens(text)), answer)}
    scheme = Tilt(delta=1.0, directions=6, blends=50, pool=marks[0].scheme.pool)
    mark = wmplug.create(owner, scheme=scheme, carriers=topics[0], labels=topics[1], **options)
    net = torch.nn.Sequential(torch.nn.Linear(8, 4))
    suspect = ModuleSuspect(net, forward=lambda module, given: module(torch.zeros(len(given), 8)))
    with pytest.raises(InjectionError, match=r"float32 for 50 texts, token ids"):
        TorchPoints(mark, net).install(suspect)
