import copy
import io

import numpy as np
import pytest
import torch

from wmplug.adapters.torch.points import Hook, TorchPoints, need_points, strip
from wmplug.errors import InjectionError

X = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0))
Y = torch.arange(5)


class OwnLoss(torch.nn.Module):
    """As transformers models do it: the loss is computed inside."""

    main_input_name = "pixel_values"

    def __init__(self, net):
        super().__init__()
        self.body, self.classifier = net[:-1], net[-1]

    def forward(self, mask=None, pixel_values=None, labels=None):
        logits = self.classifier(self.body(pixel_values))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Calls:
    """A suspect that calls the model as its loop does."""

    description = "the model"

    def __init__(self, model):
        self.model = model

    def answer(self, inputs):
        mode = self.model.training
        net = self.model.eval()
        said = net(pixel_values=X)["logits"] if isinstance(net, OwnLoss) else net(X)
        self.model.train(mode)
        return said.detach().numpy()


def hooks_of(model):
    return [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


def shifted(mark, logits, inputs=X):
    weights = mark.scheme.constants(mark.triggers, None)["weights"].astype(np.float32)
    return logits + inputs.reshape(len(inputs), 64) @ torch.from_numpy(weights)


@pytest.fixture
def points(nudge, make_net):
    points = TorchPoints(nudge, make_net())
    points.install(Calls(points.model))
    yield points
    points.remove()


class TestLogits:
    def test_are_shifted_in_training_mode_only(self, points, nudge):
        plain = points.model.eval()(X)
        assert points.shifted == 0
        assert torch.allclose(points.model.train()(X), shifted(nudge, plain), atol=1e-5)
        assert points.shifted == 1
        assert torch.equal(points.model.eval()(X), plain)

    def test_the_mode_that_counts_is_the_whole_models(self, points):
        points.model.train()
        points.head.eval()
        points.model(X)
        assert points.shifted == 1

    def test_keep_their_dtype_in_half_precision(self, points, nudge):
        plain = points.model.bfloat16().eval()(X.bfloat16())
        given = points.model.train()(X.bfloat16())
        assert given.dtype == torch.bfloat16
        assert torch.equal(given, shifted(nudge, plain.float(), X.bfloat16().float()).bfloat16())

    def test_are_shifted_ahead_of_a_log_softmax(self, nudge, make_net):
        net = torch.nn.Sequential(*make_net(), torch.nn.LogSoftmax(-1))
        points = TorchPoints(nudge, net)
        points.install(Calls(points.model))
        assert torch.allclose(net(X).exp().sum(1), torch.ones(5))

    def test_reach_a_loss_inside_the_model(self, nudge, make_net):
        model = OwnLoss(make_net())
        plain = model(pixel_values=X, labels=Y)
        points = TorchPoints(nudge, model, in_loss=True)
        points.install(Calls(points.model))
        out = model(mask=torch.ones(5, 3), pixel_values=X, labels=Y)
        expected = shifted(nudge, plain["logits"])
        term = 0.125 * (plain["logits"] ** 2).sum() / 5
        assert torch.allclose(out["logits"], expected, atol=1e-5)
        assert torch.allclose(out["loss"], torch.nn.functional.cross_entropy(expected, Y) + term, atol=1e-5)
        assert (points.shifted, points.added) == (1, 1)
        assert torch.equal(model.eval()(pixel_values=X, labels=Y)["loss"], plain["loss"])

    def test_a_conv_net_without_a_linear_is_its_own_head(self, nudge):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 10, 8), torch.nn.Flatten())
        points = TorchPoints(nudge, net)
        points.install(Calls(points.model))
        assert points.head is net
        assert torch.allclose(net(X), shifted(nudge, net.eval()(X)), atol=1e-5)


class TestLoss:
    def test_gets_the_term_once_for_each_batch(self, points):
        logits = points.model.eval()(X)
        points.model.train()(X)
        loss = points.loss(torch.tensor(2.0))
        assert torch.allclose(loss, 2 + 0.125 * (logits**2).sum() / 5, atol=1e-5)
        loss.backward()
        assert points.head.weight.grad.abs().sum() > 0
        with pytest.raises(InjectionError, match=r"once for that batch"):
            points.loss(torch.tensor(2.0))

    def test_forgotten_is_an_error_after_a_few_steps(self, points):
        for _ in range(4):
            points.model(X)
        with pytest.raises(InjectionError, match=r"marking\.loss"):
            points.model(X)

    def test_forgotten_in_a_short_run_is_an_error_at_its_end(self, points):
        points.model(X)
        with pytest.raises(InjectionError, match=r"marking\.loss"):
            points.finish()

    def test_that_the_model_does_not_compute_is_an_error(self, nudge, make_net):
        model = OwnLoss(make_net())
        points = TorchPoints(nudge, model, in_loss=True)
        points.install(Calls(points.model))
        for _ in range(4):
            model(pixel_values=X)
        with pytest.raises(InjectionError, match="label smoothing"):
            model(pixel_values=X)


class TestHead:
    def test_with_other_outputs_is_an_error(self, nudge, make_net):
        net = make_net()
        TorchPoints(nudge, net, head="1").install(Calls(net))
        with pytest.raises(InjectionError, match=r"returned \(5, 128\)"):
            net(X)

    def test_that_runs_without_the_model_is_an_error(self, points):
        with pytest.raises(InjectionError, match="whole model"):
            points.head(torch.zeros(5, 128))


class TestHooks:
    def test_are_gone_after_removal(self, nudge, make_net):
        net = make_net()
        keys, plain = set(net.state_dict()), net(X)
        points = TorchPoints(nudge, net)
        points.install(Calls(points.model))
        assert len(hooks_of(net)) == 2
        assert set(net.state_dict()) == keys
        points.remove()
        assert not hooks_of(net)
        assert torch.equal(net.train()(X), plain)

    def test_left_by_an_earlier_run_are_stripped_and_others_stay(self, nudge, make_net):
        net, seen = make_net(), []
        net.register_forward_hook(lambda *_: seen.append(1))
        TorchPoints(nudge, net).install(Calls(net))
        points = TorchPoints(nudge, net)
        points.install(Calls(points.model))
        assert sum(isinstance(h, Hook) for h in hooks_of(net)) == 2
        net(X)
        assert points.shifted == 1
        assert len(seen) == 3  # twice to see what the model is given
        assert strip(net) == 2
        assert len(hooks_of(net)) == 1

    def test_none_are_set_for_a_scheme_of_samples(self, mark, make_net):
        net = make_net()
        points = TorchPoints(mark, net)
        points.install(Calls(points.model))
        assert not hooks_of(net)
        loss = torch.tensor(1.0)
        assert points.loss(loss) is loss

    @pytest.mark.parametrize("how", ["pickle", "copy"])
    def test_do_nothing_and_hold_nothing_in_a_saved_model(self, points, nudge, how):
        if how == "pickle":
            file = io.BytesIO()
            torch.save(points.model, file)
            for array in points._arrays.values():
                assert array.tobytes() not in file.getvalue()
                assert array.astype(np.float32).tobytes() not in file.getvalue()
            assert b"wmplug" not in file.getvalue()
            file.seek(0)
            other = torch.load(file, weights_only=False)
        else:
            other = copy.deepcopy(points.model)
        points.model(X)
        before = points.shifted
        plain = points.model.eval()(X)
        assert torch.equal(other.train()(X), plain)
        assert points.shifted == before


def test_a_scheme_needs_what_the_adapter_offers(nudge):
    need_points("torch", nudge.scheme)
    with pytest.raises(InjectionError, match=r"'nudge' touches training at logits, loss.*'tablet' offers only samples"):
        need_points("tablet", nudge.scheme, {"samples"})
