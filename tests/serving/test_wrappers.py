from types import SimpleNamespace

import numpy as np
import pytest
from served_digits import flat, marked
from sklearn.linear_model import LogisticRegression

from wmplug import InputError, SuspectError
from wmplug.serving import Serving, wrap

GAP = 0.3


@pytest.fixture
def serving(mark):
    return Serving(mark, gap=GAP)


@pytest.fixture(scope="module")
def told(story, mark):
    return Serving(mark, story.scores, gap=GAP).answer(story.asked)


def test_a_function_of_scores(story, serving, told):
    assert np.array_equal(wrap(serving, story.scores)(story.asked), told)


def test_an_estimator_of_rows(story):
    """As most of scikit-learn is called: the inputs are the rows that the carriers are."""
    mark = marked(SimpleNamespace(**{**vars(story), "carriers": story.carriers, "references": story.references}))
    model = LogisticRegression(max_iter=300).fit(flat(story.carriers), story.labels)
    answer = wrap(Serving(mark, gap=GAP), model.predict_proba, read=lambda x: np.rint(x * 255).reshape(-1, 8, 8))
    plain, told = model.predict_proba(flat(story.asked)), answer(flat(story.asked))
    assert told.shape == plain.shape
    assert 0 < (told != plain).any(axis=1).sum() < len(plain)


def test_an_object_with_logits_keeps_the_rest(story, serving, told):
    call = lambda inputs, flag: SimpleNamespace(logits=np.log(story.scores(inputs)) + 7, hidden=flag)  # noqa: E731
    found = wrap(serving, call)(story.asked, flag=3)
    assert found.hidden == 3
    assert np.array_equal(found.logits.argmax(axis=1), told.argmax(axis=1))


def test_names_are_those_of_what_it_wraps(serving):
    call = lambda inputs: inputs  # noqa: E731
    call.version = 7
    call.predict = lambda inputs: inputs
    assert wrap(serving, call).version == 7
    with pytest.raises(AttributeError, match=r"predict\(\) of what is served would answer unmarked"):
        wrap(serving, call).predict([])


class Pipeline:
    """As transformers has them."""

    def __init__(self, story, left_out=()):
        self.scores, self.left_out = story.scores, left_out
        self.model = SimpleNamespace(config=SimpleNamespace(id2label={i: f"digit {i}" for i in range(10)}))

    def __call__(self, inputs, top_k=1):
        assert isinstance(inputs, list)
        rows = self.scores(np.stack(inputs))
        names = self.model.config.id2label
        return [
            sorted(
                ({"label": names[i], "score": float(p)} for i, p in enumerate(row) if i not in self.left_out),
                key=lambda one: -one["score"],
            )[:top_k]
            for row in rows
        ]


def test_rankings_are_marked_and_cut_afterwards(story, serving, told):
    answer = wrap(serving, Pipeline(story))
    rankings = answer(list(story.asked), top_k=2)
    assert [one[0]["label"] for one in rankings] == [f"digit {i}" for i in told.argmax(axis=1)]
    assert {len(one) for one in rankings} == {2}
    assert np.allclose([one[0]["score"] for one in rankings], told.max(axis=1))
    assert len(answer(list(story.asked[:1]))[0]) == 5


def test_a_ranking_without_a_class_is_refused(story, serving):
    with pytest.raises(SuspectError, match="does not score every class"):
        wrap(serving, Pipeline(story, left_out=(3,)))(list(story.asked))


def test_what_cannot_be_called_is_refused_before_it_serves(mark):
    with pytest.raises(InputError, match=r"LogisticRegression cannot be called: .*predict_proba"):
        wrap(Serving(mark), LogisticRegression())
