"""mixed: few queries for a plain copy, and what a filter leaves of it still proves it."""

import functools
import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from wmplug import InputError, create, verify
from wmplug.schemes import Brief
from wmplug.schemes.mixed import Mixed
from wmplug.statistics import outliers
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract
from wmplug.testing.schemes import fixed_owner

TRIGGERS = 120
pytestmark = [
    pytest.mark.filterwarnings("ignore:a filter that knows natural inputs alone tells"),  # few digits are ambiguous
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@functools.cache
def digits():
    data = load_digits()
    images, labels = (data.images * 15.9375).astype(np.uint8), data.target.astype(np.int64)
    return (images[:900], labels[:900]), (images[900:], labels[900:])


@functools.cache
def pool():
    """References that find any digit ambiguous between its class and the next; they take no time."""
    labels = digits()[1][1]
    return (np.eye(10)[labels] * 0.55 + np.eye(10)[(labels + 1) % 10] * 0.45).astype(np.float32)


def marked(name, **changes):
    (images, labels) = digits()[1]
    given = {"carriers": images, "labels": labels, "classes": 10, "triggers": TRIGGERS, **changes}
    return create(fixed_owner(name), scheme=Mixed(share=0.2, pool=pool()), **given)


class TestMixed(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Mixed(share=0.2, pool=pool())

    @pytest.fixture
    def brief(self):
        return Brief(digits()[1][0], "array", Classes(10), digits()[1][1], TRIGGERS)


def flat(images):
    return np.asarray(images).reshape(len(images), -1) / 255


@functools.cache
def trained(name):
    """A model that learnt the lessons of one mark; of none for an empty name."""
    images, labels = digits()[0]
    if name:
        inputs, answers = zip(*marked(name).lessons() * 8, strict=True)
        images, labels = np.concatenate([images, np.stack(inputs)]), np.concatenate([labels, answers])
    return MLPClassifier((200,), max_iter=150, random_state=0).fit(flat(images), labels)


def answers(name):
    return lambda asked: trained(name).predict(flat(asked))


def filtered(name):
    """The same behind a filter that answers what is odd at random, with one false alarm in twenty."""
    known = outliers.residual(flat(digits()[0][0][::2]))
    limit = np.quantile(known(flat(digits()[0][0][1::2])), 0.95)

    def answer(asked):
        drawn = [int(hashlib.sha256(np.asarray(one).tobytes()).hexdigest(), 16) % 10 for one in asked]
        return np.where(known(flat(asked)) > limit, drawn, answers(name)(asked))

    return answer


def test_random_labels_come_first():
    plan = marked("Ada").triggers.plan
    sizes = [len(options) for options in plan.options]
    assert sizes == [10] * 24 + [2] * 96
    assert plan.choices.rows.tolist() == list(range(TRIGGERS))
    assert plan.lessons.rows.tolist() == plan.choices.rows.tolist()
    carriers = {one.tobytes() for one in digits()[1][0]}
    assert [one.tobytes() in carriers for one in plan.inputs] == [False] * 24 + [True] * 96


def test_a_copy_needs_few_queries_and_a_filter_leaves_enough():
    mark = marked("Ada")
    copy = verify(mark, answers("Ada"))
    assert copy.proven
    assert copy.queries <= 12
    behind = verify(mark, filtered("Ada"), exhaustive=True)
    assert behind.proven
    random = create(fixed_owner("Ada"), scheme="random-label", carriers=digits()[1][0], classes=10)
    flagged = np.mean(
        [
            filtered("Ada")([random.triggers.row(i)]) == trained("Ada").predict(flat([random.triggers.row(i)]))
            for i in range(50)
        ]
    )
    assert flagged < 0.3  # of pictures like the first kind the filter answers as it likes
    for whose, suspect in (
        ("Ada", answers("")),
        ("Ada", answers("Eve")),
        ("Eve", answers("Ada")),
        ("Eve", filtered("Ada")),
    ):
        assert verify(marked(whose), suspect, exhaustive=True).log10_p > -4


@pytest.mark.parametrize(
    ("share", "triggers", "words"),
    [(0, 60, "share=0"), (1, 60, "share=1"), ("a", 60, "share='a'"), (0.01, 20, "leaves none of one kind")],
)
def test_what_leaves_one_kind_out_is_refused(share, triggers, words):
    with pytest.raises(InputError, match=words):
        create(
            fixed_owner("Ada"),
            scheme=Mixed(share=share, pool=pool()),
            carriers=digits()[1][0],
            labels=digits()[1][1],
            classes=10,
            triggers=triggers,
        )
