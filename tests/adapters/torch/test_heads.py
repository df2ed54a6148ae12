"""The head is the module whose outputs the model answers with."""

import pytest
import torch

from wmplug.adapters.torch.heads import find_head, settled, watched
from wmplug.adapters.torch.points import TorchPoints
from wmplug.errors import InjectionError

X = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0))


class Net(torch.nn.Module):
    """Two heads of one size, a hidden layer that looks like one, and an end of one's own."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
        self.hidden, self.main, self.aux = torch.nn.Linear(32, 10), torch.nn.Linear(32, 10), torch.nn.Linear(32, 10)
        self.free = torch.nn.Parameter(torch.randn(10, 10))
        self.end = end

    def forward(self, x):
        features = self.body(x)
        self.aux(features)
        return self.end(self, features)


ENDS = {
    "logits": lambda net, features: net.main(features),
    "log-probabilities": lambda net, features: net.main(features).log_softmax(1),
    "probabilities": lambda net, features: net.main(features).softmax(1),
    "half": lambda net, features: net.main(features).bfloat16(),
}
OWN_ENDS = {
    "logits": lambda net, features: net.hidden(features).relu() @ net.free,
    "log-probabilities": lambda net, features: (net.hidden(features).relu() @ net.free).log_softmax(1),
    "scaled": lambda net, features: 7 * net.main(features),
}


def watch(net):
    with watched(net, 10) as returned:
        said = net(X).detach().float().numpy()
    return returned, said


def test_is_found_by_name_by_object_or_by_its_outputs(make_net):
    net = make_net()
    assert find_head(net, 10, "3", False) is find_head(net, 10, net[3], False) is find_head(net, 10, None, False)
    assert find_head(net, 128, None, False) is net[1]


@pytest.mark.parametrize(
    ("head", "in_loss", "says"),
    [
        ("nowhere", False, "no module 'nowhere'"),
        (torch.nn.Linear(2, 7), False, "no part of"),
        (None, True, "head="),
    ],
)
def test_not_found_is_an_error(make_net, head, in_loss, says):
    with pytest.raises(InjectionError, match=says):
        find_head(make_net(), 7, head, in_loss)


@pytest.mark.parametrize("end", ENDS)
def test_is_the_one_that_the_model_answers_with(end):
    net = Net(ENDS[end])
    assert find_head(net, 10, None, False) is net.aux
    assert settled(net.aux, net, *watch(net), False) is net.main
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("end", OWN_ENDS)
def test_is_the_model_where_none_is(end):
    net = Net(OWN_ENDS[end])
    assert settled(net.aux, net, *watch(net), False) is net
    with pytest.raises(InjectionError, match="answers otherwise than each Linear"):
        settled(net.aux, net, *watch(net), True)


def test_is_as_guessed_where_nothing_was_seen():
    net = Net(ENDS["logits"])
    returned, said = watch(net)
    assert settled(net.aux, net, {module: [] for module in returned}, said, False) is net.aux


class Conv(torch.nn.Module):
    """Without a Linear, and with its softmax inside."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end = torch.nn.Conv2d(1, 10, 3), end

    def forward(self, x):
        return self.end(self.conv(x).relu().mean((2, 3)))


class Answers:
    """A suspect that asks the model as its loop does."""

    description = "the model"

    def __init__(self, net):
        self.net = net

    def answer(self, inputs):
        return self.net.eval()(X).detach().numpy()


def installed(nudge, net):
    points = TorchPoints(nudge, net)
    points.install(Answers(net))
    return points


@pytest.mark.parametrize("make", [lambda: Conv(lambda x: x.log_softmax(1)), lambda: Net(OWN_ENDS["log-probabilities"])])
def test_log_probabilities_are_shifted_and_stay_such(nudge, make):
    net = make()
    points, gradients = installed(nudge, net), []
    assert points.head is net
    for given in (net.train()(X), net.eval()(X)):
        torch.testing.assert_close(given.exp().sum(1), torch.ones(len(X)))
        net.zero_grad()
        torch.nn.functional.nll_loss(given, torch.arange(len(X))).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in net.parameters() if w.grad is not None]))
    assert points.shifted == 1
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_probabilities_of_a_model_without_a_head_are_refused(nudge):
    net = Conv(lambda x: x.softmax(1))
    installed(nudge, net)
    with pytest.raises(InjectionError, match="Conv returned probabilities"):
        net.train()(X)
