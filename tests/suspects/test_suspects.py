import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wmplug.errors import SuspectError
from wmplug.statistics.arrays import to_numpy
from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.losses import scores_of_losses
from wmplug.suspects.protocols import Suspect
from wmplug.tasks import Classes


def test_a_function_is_asked_in_batches():
    seen = []

    def suspect(batch):
        seen.append((type(batch), len(batch)))
        return [int(x.sum()) for x in batch]

    inputs = [np.full(2, i) for i in range(7)]
    assert CallableSuspect(suspect, 3).answer(inputs).tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert seen == [(np.ndarray, 3), (np.ndarray, 3), (np.ndarray, 1)]
    assert isinstance(CallableSuspect(suspect), Suspect)
    assert "suspect" in CallableSuspect(suspect).description


@pytest.mark.parametrize("inputs", [["a", "b"], [Image.new("L", (2, 2))] * 2])
def test_texts_and_pictures_come_as_a_list(inputs):
    assert CallableSuspect(lambda batch: [len(batch)] * len(batch) if isinstance(batch, list) else 0).answer(
        inputs
    ).tolist() == [2, 2]


def test_what_a_suspect_does_to_its_inputs_stays_with_it():
    inputs = [np.ones(2), np.ones(2)]

    def vandal(batch):
        batch[:] = 0
        return [0] * len(batch)

    CallableSuspect(vandal).answer(inputs)
    assert all((x == 1).all() for x in inputs)


@pytest.mark.parametrize("answer", [3, [1], [1, 2, 3], np.zeros((3, 10))])
def test_another_number_of_answers_is_refused(answer):
    with pytest.raises(SuspectError, match="for 2 inputs: return one label or one row"):
        CallableSuspect(lambda batch: answer).answer(["a", "b"])


def read_answers(outputs, classes, who):
    return [said and said.answer for said in Classes(classes).read(outputs, len(outputs), who)]


def read_scores(outputs, classes, who):
    return [said.scores for said in Classes(classes).read(outputs, len(outputs), who)]


def test_labels_and_scores():
    assert read_answers([1, 2], 10, "s") == [1, 2]
    assert read_answers(np.array([7, -1], np.int8), 3, "s") == [7, -1]
    assert read_answers([[0.1, 0.9], [3, 1]], 2, "s") == [1, 0]
    assert read_answers(np.array([[1, 5, 2]]), 3, "s") == [1]


@pytest.mark.parametrize("told", [1, 2, 4])
def test_the_likeliest_labels_best_first(told):
    ranked = np.array([[3, 1, 0, 4], [2, 4, 1, 0]])[:, :told]
    assert read_answers(ranked, 5, "s") == [3, 2]
    for row, scores in zip(ranked, read_scores(ranked, 5, "s"), strict=True):
        assert np.argsort(-scores, kind="stable")[:told].tolist() == row.tolist()
        assert np.exp(scores).sum() == pytest.approx(1)


RANKINGS = {
    "names": ["b", "a", "c", "a"],
    "names and None": ["b", None, "c", "a"],
    "None first": [None, "a", "c", "a"],
    "numbers and None": [1, None, 2, 0],
    "scores and None": [[0.1, 0.8, 0.1], None, [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]],
    "None in one batch": [1, 0, 2, None],
    "labels": [{"label": "b", "score": 0.9}, {"label": "a", "score": 0.9}, {"label": "c"}, {"label": "a"}],
    "labels and None": [{"label": "b", "score": 0.9}, None, {"label": "c"}, None],
    "rankings": [[{"label": n, "score": 0.9 - i / 9} for i, n in enumerate(order)] for order in ("bac", "acb") * 2],
    "rankings of other lengths": [[{"label": "b"}], [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.4}]] * 2,
    "scores by name": [{"c": 0.1, "a": 0.2, "b": 0.7}, {"c": 0.2, "b": 0.1, "a": 0.7}] * 2,
    "an array of objects": np.array(["b", None, "c", {"label": "a"}], object),
    "no answers": [None] * 4,
}
CHOSEN = {
    "names and None": [1, None, 2, 0],
    "None first": [None, 0, 2, 0],
    "numbers and None": [1, None, 2, 0],
    "scores and None": [1, None, 2, 0],
    "None in one batch": [1, 0, 2, None],
    "labels and None": [1, None, 2, None],
    "rankings": [1, 0, 1, 0],
    "rankings of other lengths": [1, 0, 1, 0],
    "scores by name": [1, 0, 1, 0],
    "an array of objects": [1, None, 2, 0],
    "no answers": [None] * 4,
}


@pytest.mark.parametrize("batch_size", [64, 2])
@pytest.mark.parametrize("kind", RANKINGS)
def test_what_a_function_ranks_is_read_in_batches_as_in_one(kind, batch_size):
    told = iter(range(0, 4, batch_size))
    function = CallableSuspect(lambda batch: RANKINGS[kind][(at := next(told)) : at + len(batch)], batch_size)
    answers = Classes(3, ("a", "b", "c")).read(function.answer(["w", "x", "y", "z"]), 4, "s")
    assert [said and said.answer for said in answers] == CHOSEN.get(kind, [1, 0, 2, 0])


@pytest.mark.parametrize("other", [{"name": "a", "of": "b"}, 3, [{"score": 0.5}]])
def test_a_ranking_without_names_says_what_is_needed(other):
    with pytest.raises(SuspectError, match=r"answered \{'label': 'a'\}, .*: return a name, \{label, score\} or a list"):
        Classes(3, ("a", "b", "c")).read([{"label": "a"}, other], 2, "s")


def test_a_table_of_scores_is_read_by_name_in_batches():
    rows = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])

    def scores(batch):
        return pd.DataFrame(rows[[int(one) for one in batch]], columns=["c", "a", "b"])

    for batch_size in (64, 2):
        told = CallableSuspect(scores, batch_size).answer(["0", "1", "2"])
        assert [said.answer for said in Classes(3, ("a", "b", "c")).read(told, 3, "s")] == [1, 2, 0]
        assert [said.answer for said in Classes(3).read(told, 3, "s")] == [2, 0, 1]


def test_losses_are_asked_for_each_class():
    logits = np.random.default_rng(0).normal(size=(4, 3))
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def loss(inputs, labels):
        assert labels.dtype == np.int64
        return -log_p[inputs, labels]

    told = CallableSuspect(scores_of_losses(loss, 3), 3).answer([np.int64(i) for i in range(4)])
    np.testing.assert_allclose(told, log_p)
    np.testing.assert_allclose(read_scores(told, 3, "s"), log_p)


def test_nan_is_no_answer_and_infinity_is():
    scores = np.array([[np.nan, 1.0], [np.nan, np.nan], [np.inf, 0.0], [-np.inf, 0.0]])
    assert read_answers(scores, 2, "s") == [None, None, 0, 1]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([0.0, 1.0], r"shape \(2,\) and dtype float64"),
        (["cat", "dog"], "the watermark knows no names of classes"),
        ([True, False], "dtype bool"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.zeros((2, 9)), "gives 9 scores an input, the watermark was made for 10 classes"),
        (np.zeros((2, 1)), "gives 1 scores"),
        (3, r"shape \(\)"),
    ],
)
def test_unreadable_answers_say_what_is_needed(outputs, words):
    with pytest.raises(SuspectError, match=words):
        Classes(10).read(outputs, 2, "s")


def test_tensors_are_taken_off_their_device():
    class Tensor:
        """What a torch tensor does."""

        def __init__(self, values, kind, steps=()):
            self.values, self.kind, self.steps = values, kind, steps

        def detach(self):
            return Tensor(self.values, self.kind, (*self.steps, "detach"))

        def cpu(self):
            return Tensor(self.values, self.kind, (*self.steps, "cpu"))

        def float(self):
            return Tensor(self.values, self.kind, (*self.steps, "float"))

        def __array__(self, dtype=None, copy=None):
            assert self.steps[:2] == ("detach", "cpu")
            if self.kind == "bfloat16" and self.steps[2:] != ("float",):
                raise TypeError("Got unsupported ScalarType BFloat16")
            return np.array(self.values, np.float16)

    assert to_numpy(Tensor([1.5], "bfloat16")).tolist() == [1.5]
    assert to_numpy(Tensor([1.5], "float16")).dtype == np.float16
