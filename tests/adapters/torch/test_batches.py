import dataclasses
import pickle
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from wmplug.adapters.torch.batches import TriggerCollate, fingerprint, labels_in, peek, prepared, primary, unwrap, wrap
from wmplug.adapters.torch.board import Board, row_signatures
from wmplug.adapters.torch.schema import fit
from wmplug.errors import InjectionError, InjectionWarning, InputError
from wmplug.keys.streams import KeyStream
from wmplug.tasks.classes import class_of
from wmplug.training.placement import Placement

POOL = 20
PICTURE = np.zeros((8, 8), np.float32)
# The rows of triggers are told by labels that no example of a dataset has.
LESSONS = [(np.full((1, 8, 8), float(i), np.float32), 100 + i) for i in range(POOL)]


def collating(rate=100_000, mode="append", world=1, collate=default_collate, examples=LESSONS, classes=0):
    placement = Placement.draw(KeyStream(bytes(32)), len(examples), mode)
    return TriggerCollate(collate, examples, placement, Board(rate), world, classes=classes)


def features(count, seed=0):
    x = torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return [(row, i % 10) for i, row in enumerate(x)]


class Pair(NamedTuple):
    x: torch.Tensor
    y: int


class TestFingerprint:
    @given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)))
    def test_depends_on_content_not_on_container(self, array):
        assert fingerprint(array) == fingerprint(torch.from_numpy(array.copy())) == fingerprint(array.copy(order="F"))

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (np.zeros(3), np.ones(3)),
            ("a sentence", "another"),
            ([1, 2, 3], [1, 3, 2]),
            ({"x": 1, "y": 2}, {"x": 2, "y": 1}),
            ((torch.zeros(2), 1), (torch.zeros(2), 2)),
            (Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 9)),
            (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
            (torch.tensor(1), torch.tensor(2)),
        ],
    )
    def test_tells_examples_apart(self, one, other):
        assert fingerprint(one) == fingerprint(pickle.loads(pickle.dumps(one)))
        assert fingerprint(one) != fingerprint(other)

    def test_ignores_the_order_of_keys(self):
        assert fingerprint({"a": 1, "b": "x"}) == fingerprint({"b": "x", "a": 1})


class TestFit:
    @given(hnp.arrays(np.float64, (8, 8), elements=st.floats(-5, 5)), st.integers(0, 9))
    def test_gives_the_schema_of_the_dataset(self, array, answer):
        x, y = fit((array, answer), (torch.zeros(1, 8, 8), torch.tensor(3)))
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((1, 8, 8), torch.float32, (), torch.int64)
        assert torch.equal(x[0], torch.from_numpy(array.astype(np.float32)))
        assert int(y) == answer

    @given(hnp.arrays(np.float32, (8, 8), elements=st.floats(0, 1, width=32)))
    def test_twice_is_once(self, array):
        like = (np.zeros((8, 8, 1), np.float16), np.int32(3))
        once = fit((array, 7), like)
        again = fit(once, like)
        assert np.array_equal(once[0], again[0])
        assert once[1] == again[1] == 7
        assert type(again[1]) is np.int32

    def test_mappings_get_the_datasets_keys(self):
        made = fit((PICTURE, 4), {"pixel_values": torch.zeros(1, 8, 8), "label": 0})
        assert set(made) == {"pixel_values", "label"}
        assert made["label"] == 4
        assert fit({"input_ids": [1, 2], "label": 3}, {"input_ids": [5], "labels": 0}) == {
            "input_ids": [1, 2],
            "labels": 3,
        }
        assert fit(("so it is", 1), {"text": "another", "label": 0}) == {"text": "so it is", "label": 1}
        picture = Image.new("L", (8, 8))
        assert fit((picture, 1), {"image": Image.new("L", (8, 8)), "label": 0})["image"] is picture

    def test_named_tuples_stay_what_they_are(self):
        assert fit((PICTURE, 2), Pair(torch.zeros(8, 8), 0)).y == 2

    @pytest.mark.parametrize(
        ("example", "like", "says"),
        [
            ((np.zeros((8, 8), np.uint8), 1), (torch.zeros(1, 8, 8), 0), "does not guess the scale"),
            ((PICTURE, 1), (torch.zeros(1, 9, 9), 0), "has shape"),
            ((PICTURE, 1), (torch.zeros(1, 8, 8), 0, 0), "pass preprocess="),
            ((PICTURE, 1), torch.zeros(1, 8, 8), "pass preprocess="),
            ((PICTURE, 1), {"x": PICTURE, "mask": PICTURE, "label": 0}, "dataset's keys"),
            ((PICTURE, 1), {"text": "a sentence", "label": 0}, "'text'"),
            ((PICTURE, 1), (Image.new("L", (8, 8)), 0), "is ndarray"),
            ((PICTURE, 1), (PICTURE, np.zeros(10, np.float32)), "several labels"),
            ((PICTURE, 1), (PICTURE, torch.tensor(0.5)), "numbers to regress"),
            ((PICTURE, 1), {"x": PICTURE, "labels": [0, 1]}, "several labels"),
        ],
    )
    def test_refuses_what_does_not_fit(self, example, like, says):
        with pytest.raises(InputError, match=says):
            fit(example, like)

    @pytest.mark.parametrize(
        "like",
        [
            np.eye(4)[1],
            np.eye(4, dtype=np.int64)[1],
            torch.tensor([0.5, 0.0, 0.2, 0.3]),
            torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.bfloat16),
            [0.0, 0.0, 0.0, 1.0],
            [0, 0, 0, 1],
            (0.25, 0.25, 0.25, 0.25),
        ],
    )
    @pytest.mark.parametrize("answer", [2, np.int64(2), torch.tensor(2)])
    def test_a_class_becomes_one_hot_as_the_datasets_labels_are(self, like, answer):
        made = fit((PICTURE, answer), (PICTURE, like), 4)[1]
        assert list(made) == [0, 0, 1, 0]
        assert type(made) is type(like)
        assert getattr(made, "dtype", type(made[0])) == getattr(like, "dtype", type(like[0]))
        assert class_of(fit((PICTURE, made), (PICTURE, like), 4)[1], 4) == 2

    @pytest.mark.parametrize("like", [0.0, 0.9, np.float32(1), torch.tensor(0.0), torch.tensor([1.0]), [0.5]])
    @pytest.mark.parametrize("answer", [0, 1])
    def test_a_class_of_two_becomes_a_number_as_the_datasets_labels_are(self, like, answer):
        made = fit({"x": PICTURE, "label": answer}, {"x": PICTURE, "label": like}, 2)["label"]
        assert np.shape(made) == np.shape(like)
        assert type(made) is type(like)
        assert np.ravel(made).tolist() == [float(answer)]
        assert np.ravel(made).dtype.kind == "f"

    @pytest.mark.parametrize(
        "like",
        [
            np.array([1.0, 1.0, 0.0]),
            torch.zeros(3),
            torch.eye(4)[0],
            [0.2, -0.2, 1.0],
            [0, 1, 1],
            torch.tensor(0.5),
            1.0,
            torch.tensor([2.5]),
            [[1.0], [0.0, 0.0]],
        ],
    )
    def test_several_labels_and_numbers_to_regress_are_refused(self, like):
        with pytest.raises(InputError, match="not supported; give each example one integer class, or 3 shares"):
            fit((PICTURE, 1), (PICTURE, like), 3)
        with pytest.raises(InputError, match="not supported"):
            fit((PICTURE, 3), (PICTURE, torch.eye(3)[0]), 3)

    def test_numbers_beyond_a_share_are_refused(self):
        with pytest.raises(InputError, match=r"class 1, the dataset's is 2\.5: several labels"):
            fit((PICTURE, 1), (PICTURE, 2.5), 2)


class TestPrepared:
    @pytest.mark.parametrize(
        "prepare",
        [
            lambda x, y: (x, y),
            lambda x, y: (x, torch.tensor(y)),
            lambda x, y: {"x": x, "label": np.int32(y)},
            lambda x, y: (x, str(y)),
            lambda x, y: {"x": x},
        ],
    )
    def test_examples_have_the_answer_where_it_can_be_read(self, prepare):
        assert len(prepared(LESSONS, prepare)) == POOL

    @pytest.mark.parametrize(
        "prepare",
        [
            lambda x, y: (x, 0),
            lambda x, y: (x, torch.tensor([3])),
            lambda x, y: {"x": x, "labels": np.int64(y + 1)},
        ],
    )
    def test_another_label_is_refused(self, prepare):
        with pytest.raises(InputError, match="was called with the answer 100 and made an example with the label"):
            prepared(LESSONS, prepare)

    @pytest.mark.parametrize("lie", [0, 1])
    @pytest.mark.parametrize(
        "label",
        [
            lambda y: np.eye(4)[y],
            lambda y: torch.eye(4)[y] * 0.9 + 0.025,
            lambda y: np.eye(4, dtype=int)[y].tolist(),
            lambda y: [y],
        ],
    )
    def test_one_hot_labels_are_read(self, lie, label):
        lessons = [(x, y % 3) for x, y in LESSONS]

        def prepare(x, y):
            return x, label(y + lie)

        if not lie:
            assert len(prepared(lessons, prepare, 4)) == POOL
            return
        with pytest.raises(InputError, match="with the answer 1 and made an example with the label 2"):
            prepared(lessons, prepare, 4)

    def test_shares_of_two_classes_are_read(self):
        lessons = [(x, y % 2) for x, y in LESSONS]
        assert len(prepared(lessons, lambda x, y: (x, float(y)), 2)) == POOL
        with pytest.raises(InputError, match="with the answer 0 and made an example with the label 1"):
            prepared(lessons, lambda x, y: (x, torch.tensor([1.0 - y])), 2)


class TestTriggerCollate:
    @settings(deadline=None)
    @given(
        st.integers(1, 40),
        st.integers(0, 500_000),
        st.sampled_from(["append", "replace"]),
        st.integers(1, 4),
        st.integers(0, 5),
    )
    def test_places_whole_triggers_and_keeps_the_rest_in_order(self, count, rate, mode, world, seed):
        rows = features(count, seed)
        collate = collating(rate, mode, world)
        x, y = collate(rows)
        triggers = y >= 100
        assert int(triggers.sum()) == collate.board.injected
        assert collate.board.batches == 1
        assert (x[triggers] == (y[triggers] - 100).view(-1, 1, 1, 1)).all()
        if mode == "replace":
            assert len(y) == count
        else:
            assert torch.equal(x[~triggers], torch.stack([row for row, _ in rows]))
            assert collate.board.injected % world == 0
        if mode == "append" and count % world == 0:
            shares = triggers.reshape(world, -1).sum(1)
            assert (shares == shares[0]).all()

    @pytest.mark.parametrize("mode", ["append", "replace"])
    @pytest.mark.parametrize("rate", [9_000, 60_000, 250_000])
    @pytest.mark.parametrize("world", [1, 2])
    def test_the_rate_is_met_over_many_batches(self, mode, rate, world):
        collate = collating(rate, mode, world)
        seen = sum(len(collate(features(16, seed))[1]) for seed in range(600))
        share = collate.board.injected / seen
        # A batch's count is a whole part and one Bernoulli draw for each process: 4 standard errors.
        assert abs(share - rate / 1e6) < 4 * world * 0.5 / 600**0.5 / 16

    def test_every_trigger_is_taught_about_as_often(self):
        collate = collating(200_000)
        labels = torch.cat([collate(features(16, seed))[1] for seed in range(500)])
        counts = torch.bincount(labels[labels >= 100] - 100, minlength=POOL)
        assert counts.min() > 0.7 * counts.float().mean()
        assert counts.max() < 1.3 * counts.float().mean()

    def test_the_same_batch_gets_the_same_triggers_anywhere(self):
        rows, one, other = features(16), collating(), collating()
        for _ in range(5):
            one(features(16, 7))
        assert torch.equal(one(rows)[1], pickle.loads(pickle.dumps(other))(rows)[1])
        assert not torch.equal(one(rows)[1], one(features(16, 3))[1])

    def test_the_board_changes_the_rate_at_once(self):
        collate = collating(500_000)
        assert len(collate(features(8))[1]) == 16
        collate.board.rate = 0
        assert len(collate(features(8))[1]) == 8

    def test_refuses_labels_that_the_collator_masks(self):
        def masking(rows):
            x, y = default_collate(rows)
            return {"x": x, "labels": torch.where(y >= 100, -100, y)}

        with pytest.raises(InjectionError, match="masked the labels"):
            collating(collate=masking)(features(16))
        assert len(collating(collate=masking, rate=0)(features(16))["labels"]) == 16

    def test_takes_a_collator_that_mixes_and_refuses_one_that_gives_several_labels(self):
        def mixing(rows, own=0.7, other=0.3):
            x, y = default_collate(rows)
            y = torch.nn.functional.one_hot(y, 200).float()
            return own * x + other * x.roll(1, 0), own * y + other * y.roll(1, 0)

        collate = collating(collate=mixing, classes=200)
        assert collate(features(16))[1].shape == (16 + collate.board.injected, 200)
        assert collate.board.injected > 0
        for classes in (0, 10):
            with pytest.raises(InjectionError, match=f"name no class of {classes}: several labels"):
                collating(collate=mixing, classes=classes)(features(16))
        with pytest.raises(InjectionError, match="several labels"):
            collating(collate=lambda rows: mixing(rows, 1.0, 1.0), classes=200)(features(16))

    def test_takes_shares_of_two_classes_and_refuses_numbers_to_regress(self):
        examples = [(x, y % 2) for x, y in LESSONS]
        rows = [(x, torch.tensor([float(y % 2)])) for x, y in features(16)]
        collate = collating(200_000, examples=examples, classes=2)
        x, y = collate(rows)
        assert y.shape == (20, 1)
        assert [int(row.max()) % 2 for row in x[16:]] == y[16:].ravel().tolist()
        rows[5] = (rows[5][0], torch.tensor([7.5]))
        with pytest.raises(InjectionError, match="numbers to regress"):
            collating(200_000, examples=examples, classes=2)(rows)

    def test_text_keeps_the_users_padding(self):
        rows = [{"input_ids": list(range(1, 4 + i)), "label": 0} for i in range(8)]

        def padding(rows):
            width = max(len(row["input_ids"]) for row in rows)
            ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
            return {"input_ids": torch.tensor(ids), "labels": torch.tensor([row["label"] for row in rows])}

        examples = [{"input_ids": np.arange(1, 20), "labels": 5}] * 3
        batch = collating(200_000, collate=padding, examples=examples)(rows)
        assert batch["labels"].tolist() == [0] * 8 + [5] * 2
        assert batch["input_ids"].shape == (10, 19)


class TestSignatures:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x,
            lambda x: x / 255,
            lambda x: (x - 0.3) / 0.2,
            lambda x: (
                (x - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.3, 0.1]).view(1, 3, 1, 1)
            ),
            lambda x: x.bfloat16(),
        ],
    )
    def test_rows_are_known_again_after_what_loops_do(self, change):
        x = torch.rand((40, 3, 8, 8), generator=torch.Generator().manual_seed(1))
        board = Board(0)
        assert not board.signed
        board.sign(x[-2:])
        assert board.signed
        assert board.recognises(row_signatures(change(x)))
        assert not board.recognises(row_signatures(change(x[:-2])))

    def test_finds_the_input_of_a_batch(self):
        x, y = torch.zeros(2, 3), torch.zeros(2)
        assert primary((x, y)) is x
        assert primary({"labels": y, "attention_mask": y, "input_ids": x}) is x
        assert primary(((), {"labels": y, "z": x})) is x
        assert primary(("text", 3)) is None


class Stream(IterableDataset):
    def __iter__(self):
        return iter(features(40))


class TestWrap:
    def test_the_loader_stays_itself_and_gets_its_own_back(self):
        loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)), 4)
        own, size = loader.collate_fn, len(loader)
        for _ in range(2):
            wrap(loader, lambda inner: collating(500_000, collate=inner))
        assert loader.collate_fn.collate is own
        assert len(loader) == size
        assert all((y >= 100).sum() == 4 for _, y in loader)
        unwrap(loader)
        assert loader.collate_fn is own
        assert all((y < 100).all() for _, y in loader)

    def test_refuses_a_loader_without_batches(self):
        with pytest.raises(InjectionError, match="batch_size=None"):
            wrap(DataLoader(features(4), batch_size=None), lambda inner: collating())

    def test_refuses_what_is_no_loader(self):
        with pytest.raises(InjectionError, match="a list without a collate_fn"):
            wrap([torch.zeros(2)], lambda inner: collating())

    def test_takes_a_batch_sampler_and_a_stream(self):
        loader = DataLoader(features(8), batch_sampler=[[0, 1], [2, 3]])
        wrap(loader, lambda inner: collating(500_000, collate=inner))
        assert [len(y) for _, y in loader] == [4, 4]
        stream = DataLoader(Stream(), 16)
        wrap(stream, lambda inner: collating(500_000, collate=inner))
        assert [len(y) for _, y in stream] == [32, 32, 16]

    def test_reaches_persistent_workers_that_run_already(self):
        loader = DataLoader(features(8), 4, num_workers=1, persistent_workers=True)
        assert all((y < 100).all() for _, y in loader)
        wrap(loader, lambda inner: collating(500_000, collate=inner))
        assert [int((y >= 100).sum()) for _, y in loader] == [4, 4]


def test_peeking_leaves_no_trace_in_random_numbers():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.rand(2) + np.random.rand(), index

    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    assert peek(Noisy())[1] == 0
    assert (torch.rand(1), np.random.rand()) == expected
    assert peek({"by": "name"}) is None


class TestOddBatches:
    """Batches that Poisson sampling, filters and collators with a will of their own make."""

    def empty_or(self, rows):
        return default_collate(rows) if rows else [torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)]

    @pytest.mark.parametrize("rows", [[], [None, None]])
    @pytest.mark.parametrize("mode", ["append", "replace"])
    def test_a_batch_without_examples_is_left_to_the_users_collator(self, rows, mode):
        """Case: IndexError in features[0], at an empty batch of Poisson sampling."""
        collate = collating(500_000, mode, collate=lambda rows: self.empty_or([row for row in rows if row is not None]))
        for _ in range(2):
            assert len(collate(rows)[1]) == 0
            assert len(collate(features(8))[1]) > 0
        assert (collate.board.batches, collate.like is None) == (4, False)

    def test_rows_that_are_missing_move_no_trigger(self):
        def dropping(rows):
            return default_collate([row for row in rows if row is not None])

        rows = features(16)
        collate = collating(500_000, collate=dropping)
        x, y = collate([None, *rows[:7], None, *rows[7:]])
        assert collate.like is rows[0]
        assert int((y >= 100).sum()) == 18
        assert torch.equal(x[y < 100], torch.stack([row for row, _ in rows]))
        assert collate.board.signed

    @pytest.mark.parametrize("move", [lambda rows: rows[::-1], lambda rows: sorted(rows, key=lambda row: -row[1])])
    def test_the_triggers_are_signed_wherever_the_collator_puts_them(self, move):
        rng = torch.Generator().manual_seed(1)
        examples = [(torch.rand(1, 8, 8, generator=rng), 100 + i) for i in range(POOL)]
        collate = collating(500_000, collate=lambda rows: default_collate(move(rows)), examples=examples)
        x, y = collate(features(16))
        assert collate.board.recognises(row_signatures(x[y >= 100]))
        assert not collate.board.recognises(row_signatures(x[y < 100]))

    def test_masked_labels_are_seen_wherever_the_collator_puts_them(self):
        def masking(rows):
            x, y = default_collate(rows)
            return x, torch.where(y >= 100, -100, y)

        with pytest.raises(InjectionError, match="masked"):
            collating(500_000, collate=masking)(features(16))

    def test_a_collator_that_changes_its_rows_finds_triggers_whole_again(self):
        def in_place(rows):
            labels = torch.tensor([row.pop("labels") for row in rows])
            return {"x": torch.stack([row.pop("x").sub_(1) for row in rows]), "labels": labels}

        examples = [{"x": torch.full((2,), float(i)), "labels": 100 + i} for i in range(POOL)]
        collate = collating(500_000, collate=in_place, examples=examples)
        for _ in range(4):
            batch = collate([{"x": torch.zeros(2), "labels": 0} for _ in range(16)])
            taught = batch["labels"] >= 100
            assert torch.equal(batch["x"][taught][:, 0], batch["labels"][taught] - 101.0)

    def test_one_that_cannot_take_triggers_is_refused_at_once_and_left_alone_later(self):
        def of_eight(rows):
            if len(rows) != 8:
                raise ValueError("eight rows, please")
            return default_collate(rows)

        with pytest.raises(
            InjectionError, match=r"eight rows.*not on the same batch without.*mode=\"replace\""
        ) as caught:
            collating(500_000, collate=of_eight)(features(8))
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(ValueError, match="eight rows, please"):  # the user's own fault
            collating(500_000, collate=of_eight)(features(7))
        taken = [0]

        def tired(rows):
            taken[0] += 1
            if taken[0] > 1 and len(rows) > 8:
                raise ValueError("too many")
            return default_collate(rows)

        collate = collating(500_000, collate=tired)
        assert len(collate(features(8))[1]) == 16
        with pytest.warns(InjectionWarning, match="too many.*this batch teaches no trigger"):
            assert len(collate(features(8))[1]) == 8
        assert len(collate(features(8))[1]) == 8  # told once
        assert (collate.board.injected, collate.board.batches) == (8, 3)

    def test_labels_masked_by_chance_later_do_not_end_the_run(self):
        often = [False]

        def masking(rows):
            x, y = default_collate(rows)
            return x, torch.full_like(y, -100) if often[0] else y

        collate = collating(500_000, collate=masking)
        collate(features(16))
        often[0] = True
        with pytest.warns(InjectionWarning, match="masked the labels"):
            assert len(collate(features(16))[1]) == 32

    def test_signatures_of_no_rows_are_none(self):
        assert row_signatures(torch.zeros(0, 3, 4)).shape == (0, 4)
        assert not Board(0).recognises(row_signatures(torch.zeros(0, 5)))

    def test_the_parts_of_a_dataclass_are_found_by_name(self):
        @dataclasses.dataclass
        class Made:
            labels: torch.Tensor
            pixel_values: torch.Tensor

        made = Made(torch.zeros(2), torch.ones(2, 3))
        assert primary(made) is made.pixel_values
        assert labels_in(made) is made.labels


def test_the_first_example_that_is_not_missing_is_peeked_at():
    assert peek([None, None, 5]) == 5
    assert peek([None] * 3) is None
