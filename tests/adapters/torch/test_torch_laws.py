"""Loops made at random: whatever a collator does with its rows, the live verdict is that of `verify` afterwards."""

import dataclasses
import random
from collections import UserDict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

import wmplug
from wmplug.adapters.torch import Watermarking

ROWS = 96
QUIET = pytest.mark.filterwarnings(
    "ignore:the trained model does not prove",
    "ignore:the loader does not shuffle",
    "ignore:.*none was recognised",
    "ignore:this checkpoint cannot be verified",
)


def ids(image):
    """The places of an image's ink, from 1: a sequence of any length."""
    return [1 + place for place, ink in enumerate(image.reshape(-1).tolist()) if ink > 100] or [1]


def prepare(image, answer):
    return {"input_ids": ids(image), "label": answer}


@dataclasses.dataclass
class Made:
    input_ids: torch.Tensor
    labels: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Collator:
    """What collators of others do, one after the other; can be pickled."""

    order: str
    drops: bool
    views: str
    side: str
    more: tuple[int, int]
    kind: str

    def __call__(self, rows):
        longest = 40 if self.drops and len(rows) > 1 else 64  # triggers have much ink: many must be asked one by one
        rows = [row for row in rows if row is not None and len(row["input_ids"]) <= longest]
        if self.order == "sorted":
            rows = sorted(rows, key=lambda row: -len(row["input_ids"]))
        if self.order == "shuffled":
            rows = random.sample(rows, len(rows))
        if self.order == "reversed":
            rows = rows[::-1]
        if self.views == "beside":
            rows = [row for row in rows for _ in range(2)]
        if self.views == "behind":
            rows = [*rows, *rows]
        width = max((len(row["input_ids"]) for row in rows), default=1)
        inputs = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            found = torch.tensor(row["input_ids"])
            inputs[i, slice(0, len(found)) if self.side == "right" else slice(width - len(found), width)] = found
        labels = torch.tensor([row["label"] for row in rows], dtype=torch.long)
        before, behind = self.more if rows else (0, 0)
        inputs = torch.nn.functional.pad(inputs, (0, 0, before, behind))
        labels = torch.nn.functional.pad(labels, (before, behind), value=-100)
        if self.kind == "dict":
            return {"input_ids": inputs, "labels": labels}
        if self.kind == "user dict":
            return UserDict(input_ids=inputs, labels=labels)
        if self.kind == "dataclass":
            return Made(inputs, labels)
        if self.kind == "with lengths":
            return inputs, (inputs > 0).sum(1), labels
        return inputs, labels


COLLATORS = st.builds(
    Collator,
    st.sampled_from(["kept", "sorted", "shuffled", "reversed"]),
    st.booleans(),
    st.sampled_from(["one", "beside", "behind"]),
    st.sampled_from(["left", "right"]),
    st.sampled_from([(0, 0), (0, 3), (2, 0), (2, 1)]),
    st.sampled_from(["tuple", "dict", "user dict", "dataclass", "with lengths"]),
)


class Bag(torch.nn.Module):
    """Scores from the sum of its ids' vectors; 0 is padding, on either side."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vectors = torch.nn.Parameter(torch.randn(65, 16, generator=generator))
        self.head = torch.nn.Parameter(torch.randn(16, 10, generator=generator))

    def forward(self, input_ids):
        there = (input_ids > 0).float().unsqueeze(-1)
        # Against half of all, since images have much ink in common.
        return ((self.vectors[input_ids] * there).sum(1) - self.vectors[1:].sum(0) / 2) @ self.head


def inputs_of(batch):
    if isinstance(batch, Made):
        return batch.input_ids
    return batch[0] if isinstance(batch, tuple) else batch["input_ids"]


def labels_of(batch):
    if isinstance(batch, Made):
        return batch.labels
    return batch[-1] if isinstance(batch, tuple) else batch["labels"]


class Data(torch.utils.data.Dataset):
    """Fresh rows, some of them missing."""

    def __init__(self, rows, missing):
        self.rows, self.missing = rows, missing

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return None if index in self.missing else dict(self.rows[index])


@st.composite
def samplings(draw):
    """What a loader is told of its batches: a size, or batches of sizes from none on."""
    kind = draw(st.sampled_from(["random", "sequential", "weighted", "batches"]))
    if kind == "batches":
        sizes = draw(st.lists(st.integers(0, 20), min_size=4, max_size=6).filter(any))
        rng = random.Random(draw(st.integers(0, 99)))
        return kind, [rng.sample(range(ROWS), size) for size in sizes]
    return kind, draw(st.sampled_from([1, 7, 16, 50]))


def loader_of(data, collate, sampling, workers):
    kind, how = sampling
    rest = {"collate_fn": collate, "num_workers": workers}
    if kind == "batches":
        return DataLoader(data, batch_sampler=how, **rest)
    generator = torch.Generator().manual_seed(3)
    sampler = {
        "random": lambda: RandomSampler(data, generator=generator),
        "sequential": lambda: SequentialSampler(data),
        "weighted": lambda: WeightedRandomSampler([1.0, 3.0] * (ROWS // 2), ROWS, generator=generator),
    }[kind]()
    return DataLoader(data, how, sampler=sampler, **rest)


@pytest.fixture(scope="module")
def worded(owner, digits):
    return wmplug.create(
        owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10, triggers=24, preprocess=prepare
    )


@QUIET
@settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    COLLATORS,
    samplings(),
    st.sampled_from(["append", "replace"]),
    st.sampled_from([0, 0, 0, 2]),
    st.sets(st.integers(0, ROWS - 1), max_size=5),
    st.integers(0, 5),
)
def test_live_and_afterwards_say_the_same(worded, digits, collate, sampling, mode, workers, missing, seed):
    rows = [prepare(image, int(label)) for image, label in zip(digits[0][:ROWS], digits[1], strict=False)]
    loader, net = loader_of(Data(rows, missing), collate, sampling, workers), Bag(seed)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with Watermarking(
        worded, net, loader, rate=0.3, mode=mode, forward=lambda net, batch: net(inputs_of(batch))
    ) as marking:
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(net.train()(inputs_of(batch)), labels_of(batch), reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        live = marking.checkpoint()
        asked = [worded.triggers.row(row) for row in worded.triggers.plan.tests[0].rows.tolist()]
        answers = marking.suspect().answer(asked).argmax(1).tolist()
    net.eval()
    expected = [int(net(torch.tensor([ids(image)])).argmax()) for image in asked]
    after = wmplug.verify(
        worded, lambda images: [int(net(torch.tensor([ids(x)])).argmax()) for x in images], exhaustive=True
    )
    assert answers == expected
    assert live.matches == after.matches
    assert len(set(expected)) > 2  # else any order would do
    assert marking.board.batches == len(loader)
