"""Classes keep the contract of a task, and broken tasks fail it."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wmplug.errors import InputError, SuspectError
from wmplug.tasks import Classes, Said, Task
from wmplug.tasks.base import column, decoded, encoded, listed
from wmplug.tasks.classes import class_of, count_of
from wmplug.testing import TaskContract


class TestClasses(TaskContract):
    @pytest.fixture
    def task(self):
        return Classes(4)

    @pytest.fixture
    def spoken(self):
        return [
            ([0, 3, 2], [0, 3, 2]),
            (np.array([[0.1, 0.2, 0.6, 0.1], [np.nan, 0, 0, 1]]), [2, None]),
            (np.array([[1, 3], [2, 0]]), [1, 2]),
        ]


class TestTwoClasses(TaskContract):
    """Of two classes, one score an input is that of class 1."""

    @pytest.fixture
    def task(self):
        return Classes(2)

    @pytest.fixture
    def spoken(self):
        return [
            ([0, 1, 1], [0, 1, 1]),
            ([0.2, 0.9, np.nan], [0, 1, None]),
            (np.array([[0.2], [0.9]], np.float32), [0, 1]),
            ([0.2, -3.0, np.nan, np.inf], [1, 0, None, 1]),
            (np.array([[-0.1], [7.0]]), [0, 1]),
            ([0.0, 1.0], [0, 1]),
        ]


@dataclass(frozen=True)
class Tags(Task):
    """Pairs of yes and no, one a line."""

    name: ClassVar[str] = "tags"
    call: ClassVar[str] = "classify"

    length: int

    def facts(self):
        return {"length": self.length}

    def belongs(self, answer):
        return isinstance(answer, tuple) and len(answer) == self.length and set(answer) <= {"yes", "no"}

    def read(self, outputs, n, who):
        if not isinstance(outputs, list) or len(outputs) != n or not all(isinstance(one, str) for one in outputs):
            raise SuspectError(f"{who} returned no {n} lines")
        return [Said(tags) if self.belongs(tags := tuple(one.split())) else None for one in outputs]

    def encode(self, answer):
        return list(answer)

    def decode(self, value):
        return tuple(value)


class TestTags(TaskContract):
    @pytest.fixture
    def task(self):
        return Tags(2)

    @pytest.fixture
    def spoken(self):
        return [(["yes no", "no no", "maybe", "no yes"], [("yes", "no"), ("no", "no"), None, ("no", "yes")])]


class Peeks(Tags):
    """Finds the symbol where it is counted, and picks that."""

    def picked(self, said, options):
        caller = sys._getframe(1).f_locals
        return int(caller["self"].symbols[caller["draw"]]) if "draw" in caller else super().picked(said, options)


class Remembers(Tags):
    """Picks what it was asked for before."""

    last: ClassVar[list] = [0]

    def picked(self, said, options):
        self.last[0] = (self.last[0] + 1) % 7
        return super().picked(said, options) if self.last[0] else 0


class Strings(Tags):
    """Does not come back as it went."""

    def decode(self, value):
        return value


class Overreads(Tags):
    """Gives one answer too many."""

    def read(self, outputs, n, who):
        return [*super().read(outputs, n, who), None]


class Crashes(Tags):
    """Raises what it likes."""

    def read(self, outputs, n, who):
        return [Said(tuple(one.split())) for one in outputs]


class Forgets(Tags):
    """Is another task after a save."""

    def facts(self):
        return {"length": self.length + 1}


BLIND = "test_picking_is_blind_to_the_symbol"


@pytest.mark.parametrize(
    ("broken", "check", "error"),
    [
        (Peeks, BLIND, AssertionError),
        (Remembers, BLIND, AssertionError),
        (Strings, "test_answers_survive_json", AssertionError),
        (Strings, "test_a_file_holds_them", (AssertionError, TypeError)),
        (Overreads, "test_what_is_spoken_is_read", AssertionError),
        (Crashes, "test_nonsense_is_refused_or_no_answer", pytest.fail.Exception),
        (Forgets, "test_it_says_what_it_is", AssertionError),
    ],
)
def test_a_broken_task_fails_where_a_sound_one_passes(broken, check, error):
    options = (("yes", "no"), ("no", "no"), ("no", "yes"))

    def run(task):
        check_of = getattr(TaskContract(), check)
        given = {"task": task, "options": options, "spoken": [(["yes no"], [("yes", "no")])]}
        names = check_of.__code__.co_varnames[1 : check_of.__code__.co_argcount]
        check_of(**{name: given[name] for name in names})

    run(Tags(2))
    with pytest.raises(error):
        run(broken(2))


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-5, 2**40) | st.text() | st.tuples(st.text(), st.integers())))
def test_a_column_holds_any_answers(answers):
    assert listed(column(answers)) == answers
    whole = all(one is None or (isinstance(one, int) and one >= 0) for one in answers)
    assert column(answers).dtype == (np.int64 if whole else object)


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(0, 9)))
def test_a_column_survives_json(answers):
    assert listed(decoded(Classes(10), encoded(Classes(10), column(answers)))) == answers


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.integers(2, 50))
def test_labels_of_any_size_are_read_as_they_are(labels, count):
    said = Classes(count).read(labels, len(labels), "s")
    assert [(one.answer, one.scores) for one in said] == [(label, None) for label in labels]


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_scores_are_log_probabilities_and_the_largest_counts(count, n, seed):
    scores = np.random.default_rng(seed).normal(0, 3, (n, count))
    said = Classes(count).read(scores, n, "s")
    assert [one.answer for one in said] == scores.argmax(axis=1).tolist()
    for one, row in zip(said, scores, strict=True):
        np.testing.assert_allclose(one.scores, np.maximum(row - np.logaddexp.reduce(row), np.log(1e-4)))


@pytest.mark.parametrize("count", [1, 0, -3, True, 2.0, "ten", None])
def test_too_few_classes_are_refused(count):
    with pytest.raises(InputError, match="a classifier of at least 2 classes"):
        Classes(count)


def test_answers_of_other_kinds_do_not_belong():
    assert [one for one in (0, 3, 4, -1, 1.0, "1", None, np.int64(2)) if Classes(4).belongs(one)] == [0, 3, 2]


def test_who_needs_classes_names_both():
    assert count_of(Classes(7), "audit") == 7
    with pytest.raises(InputError, match="audit fits answers that are classes, the watermark's answers are 'tags'"):
        count_of(Tags(2), "audit")


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_one_score_says_what_two_would(n, seed, flat):
    logits = np.append(np.random.default_rng(seed).normal(0, 3, n), 1.5)
    both = Classes(2).read(np.stack([np.zeros_like(logits), logits], axis=1), n + 1, "s")
    for single in (logits, 1 / (1 + np.exp(-logits))):
        said = Classes(2).read(single if flat else single[:, None], n + 1, "s")
        assert [one.answer for one in said] == [one.answer for one in both]
        for one, other in zip(said, both, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-9)


def test_one_score_says_nothing_of_more_classes():
    for outputs in ([0.2, 0.9], [[0.2], [0.9]]):
        with pytest.raises(SuspectError, match=r"shape|gives 1 scores"):
            Classes(3).read(outputs, 2, "s")


@settings(deadline=None)
@given(st.integers(2, 9), st.data())
def test_a_label_names_its_class_however_it_is_written(classes, data):
    answer = data.draw(st.integers(0, classes - 1))
    row = np.eye(classes)[answer]
    soft = 0.9 * row + 0.1 / classes
    shapes = (answer, np.int32(answer), np.array([answer]), row, row.astype(int), row[None], soft.astype(np.float16))
    assert [class_of(label, classes) for label in shapes] == [answer] * len(shapes)
    assert [class_of(label, 0) for label in shapes] == [answer] * 3 + [None] * 4
    if classes == 2:
        assert [class_of(label, 2) for label in (float(answer), np.array([answer], np.float16))] == [answer] * 2


@pytest.mark.parametrize(
    "label",
    [
        [1, 1, 0],
        [0.0, 0.0, 0.0],
        [-1.0, 1.0, 1.0],
        [0.5, 0.5],
        [0.25, 0.25, 0.25, 0.25],
        [np.nan, 0.5, 0.5],
        0.5,
        1.0,
        "1",
        True,
        [],
    ],
)
def test_a_label_of_another_kind_names_none(label):
    assert class_of(label, 3) is None


def test_a_number_beyond_a_share_names_none():
    assert [class_of(label, 2) for label in (-0.1, 1.5, np.nan, [3.0])] == [None] * 4


NAMED = Classes(3, ("ant", "bee", "cat"))


@pytest.mark.parametrize(
    "spoken",
    [
        ["bee", "cat", "ant"],
        np.array(["bee", "cat", "ant"]),
        np.array(["bee", "cat", "ant"], object),
        [{"label": "bee", "score": 0.9}, {"label": "cat", "score": 0.5}, {"label": "ant", "score": 0.4}],
        [
            [{"label": "ant", "score": 0.1}, {"label": "bee", "score": 0.9}],
            [{"label": "cat", "score": 1}],
            [{"label": "ant"}],
        ],
        [1, 2, 0],
    ],
)
def test_classes_with_names_are_answered_by_name(spoken):
    assert [one.answer for one in NAMED.read(spoken, 3, "it")] == [1, 2, 0]


@pytest.mark.parametrize(
    ("names", "spoken", "expected"),
    [
        (("-1", "1"), [-1, 1, 1, 0], [0, 1, 1, 0]),
        (("-1", "1"), np.array([1, 1]), [1, 1]),
        (("1001", "2050", "77"), [77, 1001, 2], [2, 0, 2]),
        (("-1", "0", "1"), [0, 1, -1], [0, 1, -1]),  # 0 is the class 0 or the name of class 1
        (("2", "0", "1"), [0, 1, 2], [0, 1, 2]),
        (("ant", "1"), [0, 1], [0, 1]),
    ],
)
def test_whole_numbers_that_name_classes_are_read_as_these(names, spoken, expected):
    """Unless such a number is that of another class."""
    assert [one.answer for one in Classes(len(names), names).read(spoken, len(spoken), "it")] == expected


def test_true_and_false_are_two_classes():
    for spoken in ([True, False], np.array([True, False])):
        assert [one.answer for one in Classes(2).read(spoken, 2, "it")] == [1, 0]
        assert Classes(2).labels(spoken, 2).tolist() == [1, 0]
        assert [class_of(label, 2) for label in spoken] == [1, 0]
        with pytest.raises(SuspectError, match="dtype bool"):
            Classes(3).read(spoken, 2, "it")
        with pytest.raises(InputError, match="dtype bool"):
            Classes(3).labels(spoken, 2)


def test_a_whole_ranking_of_names_gives_scores():
    scores = [[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]]
    spoken = [[{"label": name, "score": s} for name, s in zip(NAMED.names, row, strict=True)][::-1] for row in scores]
    for one, other in zip(NAMED.read(spoken, 2, "it"), NAMED.read(scores, 2, "it"), strict=True):
        assert one.answer == other.answer
        np.testing.assert_allclose(one.scores, other.scores)


class Frame:
    """Scores with the names of their columns, as a DataFrame holds them."""

    def __init__(self, columns, scores):
        self.columns, self.scores = columns, scores

    def __array__(self, dtype=None, copy=None):
        return np.array(self.scores)


@pytest.mark.parametrize("columns", [("cat", "ant", "bee"), np.array(["cat", "ant", "bee"])])
def test_scores_with_names_are_read_by_name(columns):
    spoken = [[0.1, 0.2, 0.7], [0.3, 0.5, 0.2]]
    expected = [[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]]
    assert NAMED.ordered(np.array(spoken), columns).tolist() == expected
    for one, other in zip(NAMED.read(Frame(columns, spoken), 2, "it"), NAMED.read(expected, 2, "it"), strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("columns", [("cat", "dog", "bee"), ("LABEL_2", "LABEL_0", "LABEL_1"), ("cat", "ant"), ()])
def test_scores_with_other_names_are_read_by_place(columns):
    assert [one.answer for one in NAMED.read(Frame(columns, np.eye(3)), 3, "it")] == [0, 1, 2]
    assert Classes(3).ordered(spoken := np.eye(3), ("cat", "ant", "bee")) is spoken
    assert NAMED.ordered(labels := [2, 0], ("cat", "ant", "bee")) is labels


def test_a_name_of_no_class_is_no_answer_of_the_task():
    assert [one and one.answer for one in NAMED.read(["dog", "bee", None], 3, "it")] == [-1, 1, None]
    with pytest.raises(SuspectError, match="answered 'bee', a name, and the watermark knows no names"):
        Classes(3).read(["bee"], 1, "it")


def test_labels_may_be_names():
    assert NAMED.labels(["cat", "ant"], 2).tolist() == [2, 0]
    assert NAMED.labels([2, 0], 2).tolist() == [2, 0]
    with pytest.raises(InputError, match="labels hold 'dog', which is none of the classes ant, bee, cat"):
        NAMED.labels(["dog", "ant"], 2)
    assert Classes.named(["b", "a", "b"]) == Classes(2, ("a", "b"))
    with pytest.raises(InputError, match=r"hold 2 names \(a, b\), and classes=3"):
        Classes.named(["b", "a"], 3)
    assert Classes.restore(NAMED.facts()) == NAMED
    assert Classes(3).facts() == {"classes": 3}
    assert (NAMED.shown(1), Classes(3).shown(1)) == ("bee", "1")


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "b"), ("a", "", "b"), (1, 2, 3)])
def test_names_fit_their_classes(names):
    with pytest.raises(InputError, match="names for 3 classes"):
        Classes(3, names)


@pytest.mark.parametrize(
    "answers",
    [
        ["0", "1", "2"],
        ["LABEL_0", "LABEL_1"],
        ["ANT", "BEE"],
        [{"label": 1, "score": 0.9}] * 2,
        [[{"label": "LABEL_1", "score": 0.9}, {"label": "LABEL_0", "score": 0.1}]] * 2,
        np.array(["dog", "dog"]),
    ],
)
def test_names_that_are_all_foreign_are_an_error_and_no_clearance(answers):
    """Case: a copy whose pipeline said LABEL_3 for `cat` was cleared, with 40 answers outside the candidates."""
    task = Classes(3, ("ant", "bee", "cat"))
    with pytest.raises(SuspectError, match=r"none of its \d answers names a class of the watermark \(ant, bee, cat\)"):
        task.read(answers, len(answers), "it")
    said = task.read([answers[0], "bee"] if isinstance(answers[0], str) else [answers[0], {"label": "bee"}], 2, "it")
    assert [one.answer for one in said] == [-1, 1]
    assert [one.answer for one in task.read(answers[:1], 1, "it")] == [-1]


def test_names_may_be_ranked_best_first():
    task = Classes(3, ("ant", "bee", "cat"))
    for ranked in ([["cat", "ant"], ["bee", "cat"]], np.array([["cat", "ant"], ["bee", "cat"]])):
        assert [one.answer for one in task.read(ranked, 2, "it")] == [2, 1]
    said = task.read([["cat", "ant", "bee"], ["bee", "cat", "ant"]], 2, "it")
    assert [one.scores.argsort().tolist() for one in said] == [[1, 0, 2], [0, 2, 1]]
