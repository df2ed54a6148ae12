"""One score an input as two logits and back, and whether a sigmoid made it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate

from wmplug.adapters.torch.modules import ModuleSuspect, forward_batch
from wmplug.adapters.torch.rows import AskedRows
from wmplug.adapters.torch.single import answers_shares, is_share, is_single, logits_of, numbers_of, score_of

X = torch.rand((6, 8), generator=torch.Generator().manual_seed(0))
ENDS = {
    "module": (torch.nn.Sigmoid(), True),
    "function": (torch.sigmoid, True),
    "method": (lambda z: z.sigmoid(), True),
    "functional": (torch.nn.functional.sigmoid, True),
    "squeezed": (lambda z: torch.sigmoid(z).squeeze(1), True),
    "squeezed before": (lambda z: torch.sigmoid(z.squeeze(-1)), True),
    "in half precision": (lambda z: torch.sigmoid(z.bfloat16()).float(), True),
    "of two": (lambda z: torch.cat([-z, z], 1).softmax(1)[:, 1:], True),
    "none": (lambda z: z, False),
    "scaled": (lambda z: z / 100 + 0.5, False),
    "gated": (lambda z: torch.sigmoid(7 * z) * 0 + z / 100 + 0.5, False),
}


class Net(torch.nn.Module):
    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.end = torch.nn.Linear(8, 1), end

    def forward(self, x):
        return self.end(self.head(x))


@given(st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=9), st.booleans(), st.booleans())
def test_a_score_comes_back_from_its_logits(scores, share, flat):
    score = torch.tensor(scores)
    score = score if flat else score[:, None]
    output = score.sigmoid() if share else score
    logits = logits_of(output, share)
    assert is_single(output, 2)
    assert not is_single(output, 3)
    assert logits.shape == (len(scores), 2)
    torch.testing.assert_close(logits.softmax(1)[:, 1], score.sigmoid().reshape(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(score_of(logits, share, output), output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("end", ENDS)
def test_a_sigmoid_is_seen(end):
    made, share = ENDS[end]
    for row in X:
        assert answers_shares(Net(made), lambda model, row=row: model(row[None])) is share


@pytest.mark.parametrize("end", [end for end in ENDS if end not in ("of two", "gated", "scaled")])
def test_the_graph_of_gradients_shows_a_sigmoid(end):
    made, share = ENDS[end]
    assert is_share(Net(made)(X)) is share


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_a_scripted_model_hides_it():
    assert answers_shares(torch.jit.script(torch.nn.Sigmoid()), lambda model: model(X[0, 0])) is None


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_suspect_answers_with_the_probability(end, batch_size):
    made, share = ENDS[end]
    net = Net(made)
    said = np.ravel(ModuleSuspect(net, batch_size=batch_size).answer(list(X)))
    raw = net(X).detach().reshape(-1)
    np.testing.assert_allclose(said, raw if share else raw.sigmoid(), atol=1e-6)


def test_a_suspect_that_drops_the_axis_of_a_single_row_is_asked_too():
    net = Net(lambda z: z.squeeze())
    one, all_at_once = (ModuleSuspect(net, batch_size=size).answer(list(X)) for size in (1, 6))
    np.testing.assert_allclose(one, all_at_once, atol=1e-6)
    rows = AskedRows(lambda rows: default_collate(rows), forward_batch)
    np.testing.assert_allclose(ModuleSuspect(net, forward=rows).answer(list(X)), all_at_once, atol=1e-6)


def test_a_suspect_of_more_scores_is_not_asked_twice():
    calls = []
    net = torch.nn.Linear(8, 2)
    net.register_forward_hook(lambda *args: calls.append(1))
    ModuleSuspect(net).answer(list(X))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("labels", "classes", "wanted"),
    [
        (torch.tensor([2, 0, 1]), 3, [2, 0, 1]),
        (torch.eye(3)[[2, 0, 1]], 3, [2, 0, 1]),
        (torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.4, 0.0]]), 3, [2, 0]),
        (torch.tensor([[1.0], [0.2]]), 2, [1, 0]),
        (torch.tensor([1.0, 0.2]), 2, [1, 0]),
    ],
)
def test_labels_become_class_numbers(labels, classes, wanted):
    found = numbers_of(labels, classes)
    assert found.tolist() == wanted
    assert found.dtype == torch.int64


@pytest.mark.parametrize("labels", [torch.tensor([0.5, 3.0]), torch.ones(2, 3), None, "labels"])
def test_other_labels_stay_what_they_are(labels):
    assert numbers_of(labels, 3) is labels
