"""Carriers in what people keep them in: the column that is meant is taken, and what is unclear is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

import wmplug
from wmplug.errors import InputError
from wmplug.watermark.columns import columns

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
