"""Sets in memory: what is taken, and what is said of everything else."""

from collections import namedtuple
from dataclasses import dataclass

import datasets
import numpy as np
import pandas as pd
import pytest

from wmplug.dataset.sources import open_source
from wmplug.errors import InputError


@dataclass
class Example:
    text: str
    label: int


class Thing:
    def __init__(self, label, text):
        self.label, self.text, self._hidden = label, text, None


Row = namedtuple("Row", "x y")
TEXTS, LABELS = ["a", "b", "c"], [0, 1, 0]
FRAME = pd.DataFrame({"text": TEXTS, "label": LABELS})
WHOLE = {
    "dataclasses": ([Example("a", 0)], "a Example with text, label", "([one.text for one in data], [one.label for"),
    "named tuples": ([Row("a", 0)], "a Row with x, y", "([one.x for one in data], [one.y for one in data])"),
    "named tuples of numbers": ([Row(1.5, 0)], "a Row with x, y", "([one.x for one in data], [one.y for one in data])"),
    "objects": ([Thing(0, "a")], "a Thing with label, text", "([one.text for one in data], [one.label for one in"),
    "tuples": ([("a", 0)], "a tuple of 2 parts", "([one[0] for one in data], [one[1] for one in data])"),
    "arrays in tuples": ([(np.zeros(3), 0)], "a tuple of 2 parts", "([one[0] for one in data], [one[1] for one in"),
    "dicts": ([{"text": "a", "label": 0}], "a dict with text, label", "([one['text'] for one in data], [one['label']"),
}
OTHER = {
    "a list of two": ([np.zeros((4, 3)), np.zeros(4)], "a list of two ndarrays: .* give a tuple of the two"),
    "a frame": (FRAME, r"a DataFrame: give datasets\.Dataset\.from_pandas\(data\), or a pair"),
    "a dict": ({"text": TEXTS}, r"a dict: give datasets\.Dataset\.from_dict\(data\), or a pair"),
    "series": ((FRAME["text"], FRAME["label"]), r"the inputs are a Series: .* give inputs\.to_numpy\(\)"),
    "labels in a series": ((TEXTS, FRAME["label"]), r"the labels are a Series: .* give labels\.to_numpy\(\)"),
    "a generator": ((one for one in TEXTS), "the set is a generator: give a .csv"),
    "ragged rows": (([[1, 2], [3, [4]], [5, 6]], LABELS), "record 1 is a list, unlike the first one"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_examples_are_told_how_to_become_a_pair(name):
    examples, what, advice = WHOLE[name]
    with pytest.raises(InputError) as refused:
        open_source(3 * examples)
    assert f"record 0 is {what}: a set in memory is a pair (inputs, labels) of arrays or lists" in str(refused.value)
    assert advice in str(refused.value)
    made = eval(f"{str(refused.value).partition('so give ')[2]}", {"data": 3 * examples})
    assert [record.label for record in open_source(made).records()] == [0, 0, 0]


@pytest.mark.parametrize("name", OTHER)
def test_other_sets_are_told_what_is_taken(name):
    data, why = OTHER[name]
    with pytest.raises(InputError, match=why):
        list(open_source(data).records())


def test_pairs_and_inputs_are_taken():
    for data in ((TEXTS, LABELS), (np.array(TEXTS), np.array(LABELS)), ([[1, 2], [3, 4], [5, 6]], LABELS)):
        assert [record.label for record in open_source(data).records()] == LABELS
    assert [record.label for record in open_source((TEXTS, None)).records()] == [None] * 3
    assert [record.input for record in open_source(TEXTS).records()] == TEXTS


def test_splits_are_named():
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_pandas(FRAME)})
    with pytest.raises(InputError, match=r"has the splits train: mark one of them, data\['train'\]"):
        open_source(splits)


@pytest.mark.parametrize("kind", [".parquet", ".tar"])
def test_a_table_beside_class_folders_of_pictures_is_asked_about(tmp_path, pictures, kind):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pictures[0][0].save(tmp_path / name / "0.png")
    (tmp_path / f"more{kind}").touch()
    with pytest.raises(InputError, match=rf"holds 2 pictures in folders, and 1 {kind} files such as more{kind}: give "):
        open_source(tmp_path)
