import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from wmplug import create
from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.keys.streams import KeyStream, Subkeys, derive
from wmplug.tasks import Classes, Numbers, Said
from wmplug.tasks.classes import read_labels
from wmplug.watermark import file
from wmplug.watermark.carriers import digest, read_carriers
from wmplug.watermark.plan import Lessons, Pattern, Plan, TriggerSet, draw_symbols

KEY = bytes(range(32))
TASK = Classes(5)
CANDIDATES = ((0, 1, 2), (4, 3), (0, 1, 2, 3, 4))


def plan(**changes):
    whole = {
        "inputs": np.arange(12, dtype=np.uint8).reshape(6, 2),
        "draw": np.array([0, 0, 1, 2, -1, 2]),
        "labels": np.array([-1, -1, -1, -1, 3, -1]),
        "candidates": CANDIDATES,
        "asked": np.array([3, 0, 1, 2]),
        "taught": np.array([4, 5]),
    }
    held = {**whole, **changes}
    options = held.pop("candidates")
    counts = {"candidates": np.concatenate(options), "candidate_counts": np.array([len(draw) for draw in options])}
    return file.plan_of(held.pop("inputs"), {**held, **counts}, TASK, {})


def trigger_set(**changes):
    return TriggerSet(plan(**changes), "array", TASK, np.array([2, 0, 4]))


def signed(**changes):
    """Three rows, each with a sign of its own that decides between two numbers, of which two are taught."""
    given = {"rows": [0, 1, 2], "signs": 3, "natural": [5.0, 6.0, 7.0], "targets": ((4.0, 6.0), (5.0, 7.0), (6.0, 8.0))}
    pattern = Pattern(**{**given, **changes})
    return Plan(np.eye(4), Lessons([0, 2, 2, 3], [-1] * 4, [5.0, 7.0, 7.0, 1.5]), (pattern,))


def test_a_sign_decides_which_target_a_row_is_taught():
    triggers = TriggerSet(signed(), "array", Numbers(), np.array([0, 1, 1]))
    assert triggers.answers.tolist() == [4.0, 7.0, 8.0, 1.5]
    assert triggers.plan.secret.tolist() == [0, 1, 2]
    held = file.columns(triggers)
    again = file.plan_of(triggers.plan.inputs, held, Numbers(), {})
    assert again.pattern.targets == triggers.plan.pattern.targets
    assert again.natural.tolist() == triggers.plan.natural.tolist()
    natural = TriggerSet(signed(targets=()), "array", Numbers(), np.array([0, 1, 1]))
    assert natural.answers.tolist() == [5.0, 6.0, 7.0, 1.5]
    assert natural.plan.secret.tolist() == []
    assert set(held) - set(file.columns(natural)) == {"targets"}  # older files are byte for byte as they were


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": ((4.0, 6.0),)}, "1 targets"),
        ({"signs": 4}, "4 signs"),
        ({"targets": ((4.0, 6.0), (5.0, 5.0), (6.0, 8.0))}, "differ"),
        ({"targets": ((4.0, 6.0), (5.0, 7.0, 9.0), (6.0, 8.0))}, "two answers"),
    ],
)
def test_targets_fit_the_pattern(changes, words):
    with pytest.raises(InputError, match=words):
        signed(**changes)


def test_symbols_are_uniform_and_independent():
    drawn = np.array([draw_symbols(KeyStream(derive(KEY, str(i))), CANDIDATES) for i in range(3000)])
    for column, candidates in zip(drawn.T, CANDIDATES, strict=True):
        assert chisquare(np.bincount(column, minlength=len(candidates))).pvalue > 1e-4
    pairs = np.bincount(drawn[:, 0] * 5 + drawn[:, 2], minlength=15)
    assert chisquare(pairs).pvalue > 1e-4


def test_symbols_stay_for_ever():
    drawn = draw_symbols(KeyStream(KEY), ((0, 1, 2, 3, 4, 5, 6),) * 12)
    assert drawn.tolist() == [6, 6, 1, 1, 0, 3, 4, 2, 6, 3, 0, 6]


class Keyed:
    """An owner whose input and label keys can be exchanged one by one."""

    name, commitment, path = "Ada", "00", Path("nowhere")

    def __init__(self, **keys):
        self.keys = {"input": KEY, "label": KEY, "schedule": KEY, "disclosure": KEY, **keys}

    def pledges(self, watermark):
        return [self]

    def subkeys(self, salt):
        return Subkeys(self.keys)

    def seal(self):
        return None


@pytest.mark.parametrize("scheme", ["random-label", "logo"])
def test_inputs_follow_the_input_key_alone_and_answers_the_label_key_alone(digits, scheme):
    def made(**keys):
        mark = create(Keyed(**keys), scheme=scheme, carriers=digits[0], labels=digits[1], classes=10, triggers=50)
        return mark.triggers.plan, mark.triggers.symbols

    (first, symbols), (same, others), (moved, kept) = made(), made(label=bytes(32)), made(input=bytes(32))
    for name in ("draw", "natural"):
        assert (getattr(first, name) == getattr(same, name)).all()
    for name in ("choices", "lessons"):
        assert (getattr(first, name).rows == getattr(same, name).rows).all()
    assert (first.inputs == same.inputs).all()
    assert first.options == same.options
    assert (symbols != others).mean() > 0.6
    assert (first.inputs != moved.inputs).any()
    assert (symbols == kept).all()


def test_answers_of_triggers_and_labels_of_negatives():
    made = trigger_set()
    assert made.answers.tolist() == [2, 2, 4, 4, 3, 4]
    assert [group.tolist() for group in made.groups] == [[3], [0, 1], [2]]
    assert len(made) == 4


def test_count_is_by_draw_and_skips_what_is_no_candidate():
    made = trigger_set()
    result = made.count(made.groups[1], [Said(2), Said(1)])
    assert (result.symbol, result.counts, result.matches) == (2, (0, 1, 1), 1)
    assert made.count(made.groups[1], [None, Said(9)]).counts == (0, 0, 0)
    # Candidates in another order than their values: the symbol is a position, not a class.
    assert made.count(made.groups[2], [Said(4)]).matches == 1
    assert made.count(made.groups[2], [Said(3)]).matches == 0


def test_rows_are_copies():
    made = trigger_set()
    before = made.plan.inputs.copy()
    made.row(0)[:] = 99
    assert (made.plan.inputs == before).all()
    pictures = TriggerSet(plan(inputs=np.zeros((6, 4, 4), np.uint8)), "pil", TASK, np.zeros(3, int))
    pictures.row(0).putpixel((0, 0), 200)
    assert pictures.plan.inputs.max() == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": np.zeros(5, int)}, "one draw and one label"),
        ({"asked": np.array([], int)}, "at least one"),
        ({"asked": np.array([4])}, "belong to one of its draws"),
        ({"asked": np.array([6])}, "rows 0 to 5"),
        ({"taught": np.array([-1])}, "rows 0 to 5"),
        ({"draw": np.array([0, 0, 1, 2, -1, 3])}, "draw 3"),
        ({"asked": np.array([0, 2, 1])}, "one after the other"),
        ({"candidates": ((0, 1, 2), (4,), (0, 1))}, "at least two candidates"),
        ({"candidates": ((0, 1, 1), (4, 3), (0, 1))}, "at least two candidates"),
    ],
)
def test_plan_refuses(changes, words):
    with pytest.raises(InputError, match=words):
        plan(**changes)


def test_root_is_rfc_9162_over_canonical_leaves():
    made, salts = trigger_set(), KeyStream(KEY)
    leaves = []
    for i, answer in enumerate([2, 2, 4, 4, 3, 4]):
        x = hashlib.sha256(b"|u1(2,)\x00" + bytes([2 * i, 2 * i + 1])).hexdigest()
        salt = salts.bytes(16).hex()
        # RFC 8785: keys in order, no blanks.
        text = f'{{"i":{i},"n":6,"salt":"{salt}","version":1,"watermark":"ab","x_sha256":"{x}","y":{answer}}}'
        leaves.append(merkle.leaf_hash(text.encode()))
    assert made.root("ab", KeyStream(KEY)) == merkle.root(leaves).hex()


def test_root_changes_with_every_input_answer_and_salt():
    roots = {trigger_set().root("ab", KeyStream(KEY)), trigger_set().root("ac", KeyStream(KEY))}
    roots.add(trigger_set().root("ab", KeyStream(bytes(32))))
    for row in range(6):
        inputs = plan().inputs.copy()
        inputs[row, 1] ^= 1
        roots.add(trigger_set(inputs=inputs).root("ab", KeyStream(KEY)))
    for draw in range(3):
        symbols = np.array([2, 0, 4])
        symbols[draw] = (symbols[draw] + 1) % 2
        roots.add(dataclasses.replace(trigger_set(), symbols=symbols).root("ab", KeyStream(KEY)))
    assert len(roots) == 12


def test_digest_tells_dtype_shape_and_order_apart_but_not_layout():
    a = np.arange(6, dtype=np.int32)
    different = [
        a,
        a.astype(np.int64),
        a.astype(np.float32),
        a.reshape(2, 3),
        a.reshape(3, 2),
        a[::-1],
        "a",
        ["a"],
        ["a", ""],
    ]
    assert len({digest(x) for x in different}) == len(different)
    assert digest(a) == digest(a.astype(">i4")) == digest(np.repeat(a, 2)[::2])


def test_carriers_as_arrays():
    pictures = np.zeros((3, 4, 4), np.uint8)
    for given in (pictures, list(pictures), tuple(pictures)):
        read, form = read_carriers(given)
        assert (form, read.shape, read.dtype) == ("array", (3, 4, 4), np.uint8)
    assert read_carriers([[1.0, 2.0], [3.0, 4.0]])[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (2, 5, 4)), ("RGB", (2, 5, 4, 3)), ("RGBA", (2, 5, 4, 4)), ("F", (2, 5, 4))]
)
def test_carriers_as_pictures_come_back_in_their_mode(mode, shape):
    read, form = read_carriers([Image.new(mode, (4, 5)), Image.new(mode, (4, 5))])
    assert (form, read.shape) == ("pil", shape)
    row = TriggerSet(plan(inputs=np.repeat(read, 3, axis=0)), "pil", TASK, np.zeros(3, int)).row(0)
    assert (row.mode, row.size) == (mode, (4, 5))


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "HSV"])
def test_pictures_whose_array_means_something_else_are_refused(mode):
    with pytest.raises(InputError, match=r"mode|dtype"):
        read_carriers([Image.new(mode, (4, 5))])


def test_carriers_as_texts():
    assert read_carriers(["a b", "c"]) == (["a b", "c"], "text")
    assert read_carriers(np.array(["a b", "c"])) == (["a b", "c"], "text")
    assert read_carriers(np.array(["a b", "c"], dtype=object)) == (["a b", "c"], "text")


def test_a_shuffled_series_is_read_by_position():
    class Series:
        """Indexed by its labels, as pandas does."""

        def __len__(self):
            return 2

        def __getitem__(self, label):
            return {0: "second", 1: "first"}[label]

        def to_numpy(self):
            return np.array(["first", "second"], dtype=object)

    assert read_carriers(Series())[0] == ["first", "second"]


@pytest.mark.parametrize(
    ("carriers", "words"),
    [
        ([], "no carriers"),
        (np.zeros((0, 3)), "no carriers"),
        ("one string", "carriers are a str"),
        (b"bytes", "carriers are a bytes"),
        (7, "carriers are a int"),
        (None, "carriers are a NoneType"),
        ({0: "a", 1: "b"}, "carriers are a dict"),
        (iter(["a"]), "carriers are a list_iterator"),
        (np.array(3.0), "carriers are a ndarray"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], r"differ in shape.*\(2, 2\) float64, \(2, 3\) float64"),
        ([np.zeros(2, np.uint8), np.zeros(2)], "differ in shape, dtype"),
        ([Image.new("L", (4, 4)), Image.new("RGB", (4, 4))], "RGB"),
        ([Image.new("L", (4, 4)), np.zeros((4, 4), np.uint8)], "differ in shape, dtype or kind"),
        (["a", np.zeros(3)], "differ"),
        (["a", 3], "differ"),
        ([(np.zeros((2, 2)), 3)], "without labels"),
        ([object(), object()], "dtype object"),
        ([True, False], "dtype bool"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.array([[1.0, np.inf]]), "infinity"),
        (np.zeros((2, 2), complex), "dtype complex"),
        (["fine", "broken \udcff"], "not Unicode"),
    ],
)
def test_carriers_refused(carriers, words):
    with pytest.raises(InputError, match=words):
        read_carriers(carriers)


def test_labels():
    assert read_labels(None, 3, 2) is None
    for given in ([0, 1, 1], (0, 1, 1), np.array([0, 1, 1], np.uint8)):
        read = read_labels(given, 3, 2)
        assert (read.tolist(), read.dtype) == ([0, 1, 1], np.int64)
    for dtype in (int, np.float32):
        read = read_labels(np.eye(4)[[3, 0, 2]].astype(dtype), 3, 4)
        assert (read.tolist(), read.dtype) == ([3, 0, 2], np.int64)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[0.1, 0.9], [1.0, 0.0]], "soft targets"),
        ([[0, 1], [1, 1]], "several labels"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], r"shape \(2, 3\)"),
        ([[0.0, 1.0]], "1 labels for 2"),
        ([0.0, 1.0], r"dtype float64.*labels.astype\(int\)"),
        ([[0], [0, 1]], "labels cannot be read"),
        (["cat", "dog"], "one integer class"),
        ([0], "1 labels for 2"),
        ([0, 2], "from 0 to 2, classes=2 allows 0 to 1"),
        ([-1, 0], "from -1 to 0"),
        ([], "dtype float64"),
    ],
)
def test_labels_refused(labels, words):
    with pytest.raises(InputError, match=words):
        read_labels(labels, 2, 2)


class Tensor:
    """What wmplug asks of a torch tensor, `mode` included, which there is a method."""

    mode = staticmethod(lambda: 1 / 0)

    def __init__(self, values):
        self.values = np.asarray(values)
        self.ndim = self.values.ndim

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return Tensor(self.values[index])

    def detach(self):
        return self

    def cpu(self):
        return self.values


def test_tensors_are_carriers_and_labels_and_the_mark_is_that_of_their_arrays():
    images = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    for given in (Tensor(images), [Tensor(image) for image in images]):
        read, form = read_carriers(given)
        assert (form, read.dtype, digest(read)) == ("array", np.float32, digest(images))
    for given in (Tensor([0, 1, 1]), [Tensor(0), Tensor(1), Tensor(1)]):
        assert read_labels(given, 3, 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize("rows", [np.array([True, False, True]), [0.0, 2.0], np.zeros((2, 1), int), ["0"]])
def test_rows_that_are_no_numbers_of_rows_are_refused(rows):
    with pytest.raises(InputError, match="give row numbers such as"):
        trigger_set().only(rows)
