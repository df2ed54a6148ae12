"""Collators that sort, shuffle, drop, repeat or rename rows: each row is known again."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from steps import take_a_step
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, default_collate

import wmplug
from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.modules import forward_batch
from wmplug.adapters.torch.rows import AskedRows
from wmplug.adapters.torch.tags import places_in, tagged, with_label
from wmplug.errors import InputError, SuspectError


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    labels: torch.Tensor


def by_brightness(rows):
    return default_collate(sorted(rows, key=lambda row: -float(row[0].sum())))


def shuffled(rows):
    return default_collate(random.sample(rows, len(rows)))


def by_label(rows):
    return default_collate(sorted(rows, key=lambda row: -int(row[1])))


def kept(rows):
    return default_collate([row for row in rows if row is not None])


def two_views(rows):
    x, y = default_collate(rows)
    return torch.cat([x, x]), torch.cat([y, y])


def two_views_one_label(rows):
    x, y = default_collate(rows)
    return torch.cat([x, x]).reshape(2, len(x), *x.shape[1:]).transpose(0, 1).flatten(0, 1), y


def mixed(rows):
    x, y = default_collate(rows)
    order = torch.randperm(len(x))
    return 0.6 * x + 0.4 * x[order], y, y[order]


def one_hot(rows):
    x, y = default_collate(sorted(rows, key=lambda row: float(row[0].sum())))
    return x, torch.nn.functional.one_hot(y, 10)


def looked_up(rows):
    x, y = by_brightness(rows)
    return x, y, torch.arange(10)[y]


def ranked(rows):
    x, y = by_brightness(rows)
    return {"input": x, "rank": torch.randperm(len(y)), "labels": y}


def popped(rows):
    labels = torch.tensor([row.pop("labels") for row in rows])
    return {"x": torch.stack([row["x"] for row in rows]), "labels": labels}


def as_dataclass(rows):
    return Batch(*by_brightness(rows))


def first(net, batch):
    if isinstance(batch, Batch):
        return net(batch.x)
    return net(batch["input"] if "input" in batch else batch["x"]) if isinstance(batch, dict) else net(batch[0])


def padded(rows):
    """Brought to whole multiples of 8 on both sides, as static shapes need it."""
    x, y = by_brightness(rows)
    more = -len(y) % 8 + 8
    x = torch.cat([x.new_zeros(8, *x.shape[1:]), x, x.new_zeros(more, *x.shape[1:])])
    return x, torch.cat([y.new_full((8,), -100), y, y.new_full((more,), -100)])


def padded_few(rows):
    """So that questions must be asked one by one, in batches that are padded too."""
    return padded(sorted(rows, key=lambda row: -float(row[0].sum()))[: -(-len(rows) * 3 // 4)])


def erased(rows):
    x, y = by_brightness(rows)
    x = x.clone()
    for row in x:
        row[..., int(torch.randint(0, 8, ())), :] = 0
    return x, y


def noisy(rows):
    x, y = default_collate(rows)
    return {"x": x + 0.3 * torch.randn_like(x), "labels": y}


def by_batch(rows):
    x, y = default_collate(rows)
    return x - 0.5 * x.mean(0), y


class Noisy:
    """With random numbers of its own, and in every second batch."""

    __name__ = "noisy_by_itself"

    def __init__(self):
        self.rng, self.calls = np.random.default_rng(0), 0

    def __call__(self, rows):
        self.calls += 1
        x, y = default_collate(rows)
        noise = torch.tensor(self.rng.normal(0, 0.3, x.shape), dtype=x.dtype)
        return x + noise * (self.calls % 2), y


COLLATORS = [
    default_collate,
    by_brightness,
    shuffled,
    by_label,
    kept,
    two_views,
    two_views_one_label,
    mixed,
    one_hot,
    looked_up,
    ranked,
    as_dataclass,
    padded,
    padded_few,
    erased,
    noisy,
    by_batch,
    Noisy(),
]


@pytest.mark.parametrize("collate", COLLATORS, ids=lambda f: f.__name__)
def test_answers_come_in_the_order_of_the_questions(make_net, dataset, collate):
    net, examples = make_net().eval(), [dataset[i] for i in range(30)]
    asked = AskedRows(collate, first)
    state = torch.get_rng_state(), random.getstate()
    with torch.no_grad():
        for _ in range(2):
            found, expected = asked(net, examples), net(default_collate(examples)[0])
            torch.testing.assert_close(found, expected)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


@pytest.mark.parametrize("collate", [by_brightness, two_views, one_hot], ids=lambda f: f.__name__)
def test_a_collator_that_moves_rows_is_known_for_it(make_net, dataset, collate):
    net, examples = make_net().eval(), [dataset[i] for i in range(30)]
    still, asked = AskedRows(kept, first), AskedRows(collate, first)
    still(net, examples)
    asked(net, examples)
    assert (still.moved, asked.moved) == (False, True)
    assert asked.alone == (collate is one_hot)


def test_an_example_that_the_collator_drops_cannot_be_asked(make_net, dataset):
    def bright(rows):
        return default_collate([row for row in rows if row[0].sum() > 20] or [(row[0][:, :0], 0) for row in rows])

    def nothing(rows):
        x, y = default_collate(rows)
        return x[:0], y[:0]

    net = make_net()
    with pytest.raises(RuntimeError):
        AskedRows(bright, first)(net, [dataset[i] for i in range(30)])
    with pytest.raises(SuspectError, match="drops this example"):
        AskedRows(nothing, first)(net, [dataset[0]])


def test_a_collator_that_changes_inputs_and_cannot_be_left_out_is_refused(mark, make_net, dataset):
    def scaling(rows):
        x, y = noisy([(x.double(), y) for x, y in rows]).values()
        return x, y

    def pictures(rows):
        return noisy([(torch.tensor(np.asarray(x), dtype=torch.float32), y) for x, y in rows])

    examples = [dataset[i] for i in range(9)]
    with pytest.raises(SuspectError, match=r"at random.*makes torch\.float64 \(1, 1, 8, 8\) of torch\.float32"):
        AskedRows(scaling, first)(make_net().double(), examples)
    with pytest.raises(SuspectError, match=r"at random.*Image.*change inputs in the dataset"):
        AskedRows(pictures, first)(make_net(), [(Image.fromarray(x.numpy()[0]), y) for x, y in examples])
    loader = DataLoader(dataset, 64, shuffle=True, collate_fn=lambda rows: Batch(*noisy(rows).values()))
    with pytest.raises(InputError, match=r"before the first step.*at random.*let the collator only join them"):
        Watermarking(mark, make_net(), loader, forward=lambda net, batch: net(batch.x)).__enter__()


def test_texts_of_any_length_are_asked_without_a_collator_that_hides_words():
    def hiding(rows):
        x = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
        return {"input_ids": x * (torch.rand(x.shape) > 0.3), "labels": torch.tensor([row["labels"] for row in rows])}

    rows = [{"input_ids": list(range(1, 5 + i)), "labels": i} for i in range(5)]
    asked = AskedRows(hiding, lambda net, batch: batch["input_ids"].sum(1, keepdim=True).float())
    sums = [sum(row["input_ids"]) for row in rows]
    assert asked(torch.nn.Identity(), rows).ravel().tolist() == sums
    assert asked.plain


@pytest.mark.parametrize(
    ("example", "found"),
    [
        ((torch.zeros(2), 1), 7),
        ([torch.zeros(2), np.int64(1)], 7),
        ((0, np.array([1], np.int32)), 7),
        ((0, torch.tensor([[1]])), 7),
        ({"x": 0, "labels": 1}, 7),
        ({"x": 0, "label": torch.tensor(1)}, 7),
        ((0, np.uint8(1)), None),
        ((0, torch.tensor(1, dtype=torch.int8)), None),
        ((0, 0.5), None),
        ((0, True), None),
        ((0, torch.zeros(10)), None),
        ({"x": 0, "target": 1}, None),
        ((0, 1, 2), None),
        ("text", None),
    ],
)
def test_what_has_a_label_to_replace(example, found):
    made: Any = with_label(example, 7)
    assert (made is None) == (found is None)
    if found is not None:
        assert type(made) is type(example)
        label = made[1] if not isinstance(made, dict) else made.get("labels", made.get("label"))
        old = example[1] if not isinstance(example, dict) else example.get("labels", example.get("label"))
        assert np.asarray(label).item() == 7
        assert type(label) is type(old)
        assert getattr(label, "shape", None) == getattr(old, "shape", None)


def test_tags_that_contradict_each_other_show_nothing():
    rows = tagged([(torch.zeros(1), 0)] * 3)
    x, y = default_collate(rows)
    assert places_in((x, y), 3).tolist() == [0, 1, 2]
    assert places_in({"x": x, "y": (y[[2, 0, 1]],)}, 3).tolist() == [2, 0, 1]
    assert places_in(Batch(x, y[:2]), 3).tolist() == [0, 1]
    assert places_in((x, y, y[[2, 0, 1]]), 3) is None
    assert places_in((x, y - y.min()), 3) is None  # as positions in a batch would look
    assert places_in((x, y.float()), 3) is None
    assert places_in(None, 3) is None
    padded = torch.cat([y, torch.tensor([-100, -100])])
    assert places_in((x, padded), 3).tolist() == [0, 1, 2, -1, -1]
    assert places_in((x, padded + 1), 3) is None
    assert places_in((x, padded[3:]), 3) is None


class Recurrent(torch.nn.Module):
    """Reads the rows of a picture one after the other, packed, as a collator must have sorted them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = torch.nn.GRU(8, 32, batch_first=True), torch.nn.Linear(32, 10)

    def forward(self, x, lengths):
        return self.head(self.cell(pack_padded_sequence(x, lengths, batch_first=True))[1][0])


def packing(rows):
    """Sorted by the number of rows before the first empty one; padded on the left or the right makes no difference."""
    rows = sorted(rows, key=lambda row: -_length(row[0]))
    x, y = default_collate(rows)
    return x[:, 0], torch.tensor([_length(row[0]) for row in rows]), y


def _length(x):
    return max(1, int((x[0].sum(1) > x[0].sum(1).mean()).sum()))


class Net(torch.nn.Module):
    """A perceptron that takes batches of any shape of this file."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, batch):
        return first(self.net, batch)


@pytest.mark.parametrize(
    "collate", [made for made in COLLATORS if made not in (mixed, one_hot)], ids=lambda f: f.__name__
)
def test_live_and_afterwards_say_the_same(mark, rivals_mark, make_net, dataset, collate):
    """Case: a collator that sorts made the live verdict 2 of 40 where `verify` said 35 of 40."""
    loader = DataLoader(dataset, 64, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(0))
    net = Net(make_net())
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    with Watermarking(mark, net, loader, forward=lambda net, batch: net(batch), rate=0.25) as marking:
        for _ in range(8):
            for batch in loader:
                logits, labels = net.train()(batch), _labels(batch)
                labels = labels.repeat_interleave(len(logits) // len(labels))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimizer.step()
        live = marking.checkpoint()
    after = wmplug.verify(mark, lambda x: net.eval().net(torch.tensor(x)[:, None]), exhaustive=True)
    assert live.matches == after.matches
    assert live.proven
    assert after.proven
    assert not wmplug.verify(rivals_mark, lambda x: net.eval().net(torch.tensor(x)[:, None]), exhaustive=True).proven


def _labels(batch):
    if isinstance(batch, Batch):
        return batch.labels
    return batch["labels"] if isinstance(batch, dict) else batch[1]


def test_a_model_that_needs_sorted_lengths_is_asked_as_the_loop_calls_it(mark, dataset):
    net = Recurrent()
    loader = DataLoader(dataset, 64, shuffle=True, collate_fn=packing)
    with pytest.raises(InputError, match=r"lengths.*pass forward="):
        Watermarking(mark, net, loader).__enter__()
    with Watermarking(mark, net, loader, forward=lambda net, batch: net(*batch[:2])) as marking:
        x, lengths, _ = next(iter(loader))
        net.train()(x, lengths)
        live = marking.checkpoint()
        suspect = marking.suspect()
        suspect.batch_size = 1
        assert live.matches == wmplug.verify(mark, suspect, exhaustive=True).matches
        marking.verdicts.clear()


def test_a_batch_of_an_unknown_kind_names_forward(make_net, dataset):
    with pytest.raises(SuspectError, match=r"returns a Batch, .*forward="):
        forward_batch(make_net(), as_dataclass([dataset[0], dataset[1]]))


def test_labels_that_a_collator_takes_out_of_its_rows_are_there_the_next_time(mark, make_net, dataset):
    rows = [{"x": x, "labels": int(y)} for x, y in dataset]

    class Fresh(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, index):
            return dict(rows[index])

    loader = DataLoader(Fresh(), 64, shuffle=True, collate_fn=popped)
    named = {"forward": lambda net, batch: net(batch["x"])}
    with Watermarking(mark, make_net(), loader, rate=0.3, **named) as marking:
        for batch in [*loader, *loader]:
            marking.model.train()(batch["x"])
        assert marking.checkpoint().queries == 60
        assert marking.board.batches == 2 * len(loader)
        marking.verdicts.clear()


def test_a_question_asked_alone_and_together_has_one_answer(mark, make_net, dataset):
    loader = DataLoader(dataset, 64, shuffle=True, collate_fn=shuffled)
    with Watermarking(mark, make_net(), loader) as marking:
        take_a_step(marking.model, loader)
        inputs = mark.triggers.samples(20)
        together, one = marking.suspect().answer(inputs), marking.suspect()
        one.batch_size = 1
        np.testing.assert_allclose(together, one.answer(inputs), atol=1e-6)
