"""Carriers in what people keep them in: the column that is meant is taken, and what is unclear is refused."""

import functools
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas
import pytest

import wmplug
from wmplug.errors import InputError
from wmplug.watermark.columns import class_names, columns

TEXTS = ["a b", "c d", "e f"]


class Frame:
    """As pandas offers it: columns with a dtype, rows by place."""

    def __init__(self, **values):
        self.values = {
            name: np.array(value, object if isinstance(value[0], str) else None) for name, value in values.items()
        }
        self.columns, self.iloc = list(values), None

    def __len__(self):
        return len(self.values[self.columns[0]])

    def __getitem__(self, name):
        if isinstance(name, list):
            return SimpleNamespace(to_numpy=lambda: np.stack([self.values[one] for one in name], axis=1))
        column = self.values[name]
        return SimpleNamespace(to_numpy=lambda: column, dtype=column.dtype, iloc=column)


class Dataset:
    """As `datasets` offers it: features by column, a column by name."""

    def __init__(self, features, **values):
        self.features, self.values, self.column_names = features, values, list(values)

    def __getitem__(self, name):
        return self.values[name]


class Image:
    pass


text, number = SimpleNamespace(dtype="string"), SimpleNamespace(dtype="int64")
classes = SimpleNamespace(dtype="int64", names=["x", "y"])


def test_a_frame_of_texts_gives_texts_and_labels():
    inputs, labels = columns(Frame(id=[7, 8, 9], text=TEXTS, label=[0, 1, 0]))
    assert inputs.tolist() == TEXTS
    assert labels.tolist() == [0, 1, 0]


def test_a_frame_of_numbers_gives_a_table_without_its_labels():
    inputs, labels = columns(Frame(a=[1.0, 2.0], b=[3.0, 4.0], target=[0, 1]))
    assert inputs.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert labels.tolist() == [0, 1]


def test_labels_given_beside_count():
    assert columns(Frame(text=TEXTS, label=[0, 1, 0]), [1, 1, 1])[1] == [1, 1, 1]


@pytest.mark.parametrize(
    "frame",
    [
        Frame(question=TEXTS, answer=TEXTS),
        Frame(text=TEXTS, label=[0, 1, 0], target=[1, 0, 1]),
        Frame(a=[1.0, 2.0], b=["x", "y"], c=["u", "v"]),
    ],
)
def test_a_frame_with_several_meanings_is_refused(frame):
    with pytest.raises(InputError, match=f"columns {', '.join(frame.columns)}, and several could be meant"):
        columns(frame)


def test_a_data_set_gives_its_pictures_or_texts():
    data = Dataset({"idx": number, "image": Image(), "label": classes}, idx=[1, 2], image=["p", "q"], label=[0, 1])
    assert columns(data) == (["p", "q"], [0, 1])
    data = Dataset({"sentence": text, "kind": classes}, sentence=TEXTS, kind=[0, 1, 1])
    assert columns(data) == (TEXTS, [0, 1, 1])
    two = Dataset({"premise": text, "hypothesis": text}, premise=TEXTS, hypothesis=TEXTS)
    with pytest.raises(InputError, match="columns premise, hypothesis"):
        columns(two)


def test_pairs_and_tensors_come_apart():
    assert columns([("a", 0), ("b", 1)]) == (["a", "b"], [0, 1])
    assert columns([("a", np.int64(0))], [5]) == (["a"], [5])
    tensors = SimpleNamespace(tensors=(np.ones((3, 2)), np.array([0, 1, 2])))
    inputs, labels = columns(tensors)
    assert (inputs.shape, labels.tolist()) == ((3, 2), [0, 1, 2])
    with pytest.raises(InputError, match="3 tensors: give the inputs alone"):
        columns(SimpleNamespace(tensors=(1, 2, 3)))


@pytest.mark.parametrize(
    "carriers", [TEXTS, np.ones((3, 4)), [(1.0, 2.0), (3.0, 4.0)], [np.ones(2), np.ones(2)], 7, []]
)
def test_plain_carriers_stay_as_they_are(carriers):
    found, labels = columns(carriers)
    assert found is carriers
    assert labels is None


def test_create_takes_pairs(owner, digits):
    pairs = list(zip(digits[0][:100], digits[1][:100].tolist(), strict=True))
    mark = wmplug.create(owner, scheme="random-label", carriers=pairs, classes=10)
    apart = wmplug.create(owner, scheme="random-label", carriers=digits[0][:100], labels=digits[1][:100], classes=10)
    assert mark.id == apart.id


class Numbered:
    """As torchvision offers it: pairs, and the names of their classes."""

    classes = ("x", "y")
    class_to_idx: ClassVar = {"y": 0, "x": 1}

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return (float(i), i % 2)


class Subset:
    """As torch offers it."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.dataset[i + 1]


LEVELS = pandas.Categorical(["mid", "low", "mid"], categories=["low", "mid", "high"])


@pytest.mark.parametrize(
    ("carriers", "labels", "names"),
    [
        (Dataset({"text": text, "kind": classes}, text=TEXTS, kind=[0, 1, 1]), None, ("x", "y")),
        (Dataset({"text": text, "label": number}, text=TEXTS, label=[0, 1, 1]), None, ()),
        (Dataset({"text": text}, text=TEXTS), None, ()),
        (Dataset({"text": text, "kind": classes}, text=TEXTS, kind=[0, 1, 1]), [0, 0, 1], ()),
        (TEXTS, SimpleNamespace(features=classes), ("x", "y")),
        (pandas.DataFrame({"text": TEXTS, "label": LEVELS}), None, ("low", "mid", "high")),
        (pandas.DataFrame({"text": TEXTS, "label": [0, 1, 0]}), None, ()),
        (pandas.DataFrame({"text": TEXTS, "label": pandas.Categorical([3, 1, 3])}), None, ()),
        (TEXTS, pandas.Series(LEVELS), ("low", "mid", "high")),
        (TEXTS, LEVELS, ("low", "mid", "high")),
        (Numbered(), None, ("y", "x")),
        (Subset(Numbered()), None, ("y", "x")),
        ([(1.0, 0), (2.0, 1)], None, ()),
        (TEXTS, ["x", "y", "x"], ()),
    ],
)
def test_names_of_classes_are_read_where_the_data_states_them(carriers, labels, names):
    assert class_names(carriers, labels) == names


def test_create_takes_the_classes_that_the_data_states(owner, digits):
    images, numbers = digits[0][:100], digits[1][:100]
    names = [f"digit {9 - i}" for i in range(10)]  # not in alphabetical order
    stated = pandas.Categorical.from_codes(numbers, categories=names)
    make = functools.partial(wmplug.create, owner, scheme="random-label", carriers=images, triggers=40)
    mark = make(labels=stated)
    assert mark.task.names == tuple(names)
    assert {make(labels=stated, classes=way).id for way in (10, names)} == {mark.id}
    assert make(labels=numbers, classes=names).id == mark.id
    for other in (9, names[::-1]):
        with pytest.raises(
            InputError, match=r"the data names 10 classes \(digit 9, .*, and classes=.*leave classes= out"
        ):
            make(labels=stated, classes=other)


def test_a_number_of_classes_leaves_numbers_without_names(owner):
    make = functools.partial(wmplug.create, owner, scheme="random-label", triggers=40)
    assert (
        make(carriers=Pictures(), classes=2).id
        == make(carriers=[*map(Pictures().__getitem__, range(40))], classes=2).id
    )
    assert make(carriers=Pictures()).task.names == ("y", "x")


class Pictures(Numbered):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return (np.full((4, 4), i, np.uint8), i % 2) if i < 40 else [][i]
