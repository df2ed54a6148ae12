"""Every attack does what it says, and leaves the model as it was."""

import dataclasses
from pathlib import Path

import pytest
import torch

from wmplug.audit import ATTACKS, FULL, QUICK, Attack
from wmplug.audit import digits as laboratory
from wmplug.audit.attacks import chosen
from wmplug.audit.training import accuracy, answers, head, layers
from wmplug.errors import InputError

CLONES = tuple(attack.name for attack in ATTACKS.values() if attack.family == "extraction")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def made(model, known):
    """What each attack makes, once."""
    kept = {}

    def make(name):
        if name not in kept:
            kept[name] = ATTACKS[name](model, known, 0)
        return kept[name]

    return make


@pytest.mark.parametrize("name", FULL)
def test_an_attack_gives_something_that_answers_and_leaves_the_model_alone(name, made, model, setting):
    before = weights(model).clone()
    suspect = made(name)
    assert torch.equal(weights(model), before)
    assert model.training is False
    assert suspect.training is False
    right = accuracy(suspect, setting.test_inputs, setting.test_labels)
    # A pixel at each side is a quarter of these pictures.
    assert right > (0.15 if name in ("foreign-clone", "prune-90") else 0.4 if name == "crop" else 0.7)


def test_the_table_names_each_attack_once_and_quick_is_a_part():
    assert set(QUICK) < set(FULL)
    assert {attack.family for attack in ATTACKS.values()} == {
        "removal",
        "extraction",
        "evasion",
        "detection",
        "adaptive",
    }
    assert all(attack.does for attack in ATTACKS.values())


def test_the_page_lists_every_attack():
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    rows = [f"| `{a.name}` | {a.family} | {a.does} | {a.paper} |" for a in ATTACKS.values()]
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows


def test_a_seed_fixes_all_and_another_changes_it(model, known):
    one, same, other = (ATTACKS["fine-tune"](model, known, seed) for seed in (0, 0, 1))
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_the_global_generator_is_left_alone(model, known):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    ATTACKS["noise"](model, known, 0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("percent", [50, 75, 90])
def test_pruned_weights_are_zero_and_the_largest_stay(made, model, percent):
    def of(net):
        return torch.cat([layer.weight.detach().flatten() for layer in layers(net)])

    before, after = of(model), of(made(f"prune-{percent}"))
    gone = after == 0
    assert gone.float().mean().item() == pytest.approx(percent / 100, abs=1e-3)
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])


def test_fine_tuning_moves_all_layers_and_last_layer_only_the_last(made, model):
    def moved(name):
        return [not torch.equal(a.weight, b.weight) for a, b in zip(layers(model), layers(made(name)), strict=True)]

    assert moved("fine-tune") == [True, True, True]
    assert moved("last-layer") == [False, False, True]
    assert moved("new-last-layer") == [False, False, True]


def test_a_new_last_layer_forgets_the_old_one(made, model):
    def likeness(name):
        a, b = (head(net, 10).weight.detach().flatten() for net in (model, made(name)))
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    assert likeness("last-layer") > 0.9
    assert abs(likeness("new-last-layer")) < 0.6


def test_fine_pruning_removes_units_for_good(made, model):
    def idle(net):
        return int((net[0].weight.flatten(1).abs().sum(1) == 0).sum())

    assert idle(model) == 0
    assert idle(made("fine-prune")) >= 1


def test_half_precision_holds_the_weights(made, model):
    assert torch.equal(weights(made("fp16")), weights(model).half().float())


@pytest.mark.parametrize(("name", "levels"), [("int8", 255), ("int4", 15)])
def test_quantised_weights_take_few_values(made, model, name, levels):
    for layer, original in zip(layers(made(name)), layers(model), strict=True):
        assert max(len(row.unique()) for row in layer.weight.detach().flatten(1)) <= levels
        step = original.weight.detach().flatten(1).abs().amax(1) / (levels // 2)
        apart = (layer.weight - original.weight).detach().flatten(1).abs().amax(1)
        assert (apart <= step / 2 + 1e-6).all()
        assert apart.max() > 0


def test_noise_is_a_fifth_of_the_spread(made, model):
    for noisy, plain in zip(layers(made("noise")), layers(model), strict=True):
        added = (noisy.weight - plain.weight).detach()
        assert float(added.std() / plain.weight.detach().std()) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("name", CLONES)
def test_a_clone_is_another_architecture(made, model, name):
    members = made(name).members if name == "ensemble" else [made(name)]
    shapes = [tuple(p.shape) for p in model.parameters()]
    for member in members:
        assert not any(isinstance(module, torch.nn.Conv2d) for module in member.modules())
        assert [tuple(p.shape) for p in member.parameters()] != shapes


def test_a_clone_follows_the_model_where_the_model_errs(model, known):
    class Wrong(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float() * 9

    clone = ATTACKS["hard-clone"](Wrong(), known, 0)
    assert (answers(clone, known.test_inputs).argmax(1) == 3).all()


def test_labels_only_tells_no_scores(made, model, setting):
    told = answers(made("labels-only"), setting.test_inputs)
    assert told.dtype == torch.int64
    assert torch.equal(told, answers(model, setting.test_inputs).argmax(1))


def test_rounded_answers_have_one_decimal(made, setting):
    told = answers(made("rounded"), setting.test_inputs)
    tenths = told / told.amin(1, keepdim=True).where(told > 0, told.amax(1, keepdim=True)).clamp(min=1e-9)
    assert torch.isfinite(tenths).all()
    assert told.unique().numel() < 60
    assert torch.allclose(told.sum(1), torch.ones(len(told)))


def test_smoothed_labels_keep_the_answer_and_a_fifth_uniform(made, model, setting):
    told = answers(made("smoothed-labels"), setting.test_inputs)
    assert told.min() >= 0.02 - 1e-6
    assert told.max() <= 0.82 + 1e-6
    assert torch.equal(told.argmax(1), answers(model, setting.test_inputs).argmax(1))


@pytest.mark.parametrize("name", ["jpeg", "resize"])
def test_inputs_are_changed_a_little(made, setting, name):
    x = setting.test_inputs[:50]
    changed = made(name).entering(x)
    assert changed.shape == x.shape
    assert 0.001 < (changed - x).abs().mean() < 0.25
    assert changed.dtype == x.dtype


def test_smoothing_votes(made, setting):
    shares = answers(made("smoothing"), setting.test_inputs)
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)))
    assert ((shares * 32).round() / 32 - shares).abs().max() < 1e-5
    assert torch.equal(shares, answers(made("smoothing"), setting.test_inputs))


def test_pictures_are_needed_where_they_are(setting):
    flat = {name: getattr(setting, name).flatten(1) for name in ("inputs", "test_inputs", "queries", "others")}
    table = dataclasses.replace(setting, **flat)
    with pytest.raises(InputError, match=r"jpeg is for pictures .* \(300, 64\): leave it out"):
        ATTACKS["jpeg"](laboratory.perceptron(), table, 0)


def test_a_model_without_last_layer_is_refused(setting):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 11))
    with pytest.raises(InputError, match="no Linear or Conv2d with 10 outputs"):
        ATTACKS["last-layer"](net, setting, 0)


def test_what_cannot_be_chosen():
    with pytest.raises(InputError, match="no attack is called 'prune-51': choose from fine-tune, "):
        chosen(["fine-tune", "prune-51"])
    with pytest.raises(InputError, match="name one or more, each once"):
        chosen([])
    with pytest.raises(InputError, match="each once"):
        chosen(["int8", ATTACKS["int8"]])
    own = Attack("own", "removal", "nothing", lambda model, setting, seed: model)
    assert chosen([own, "int8"]) == (own, ATTACKS["int8"])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"epochs": 0}, "at least 1"),
        ({"learning_rate": 0}, "a number above 0"),
        ({"architectures": ()}, "at least one"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "one int64 class for each"),
        ({"labels": torch.full((300,), 10)}, "run from 10 to 10"),
        ({"inputs": [1, 2]}, "give tensors"),
        ({"others": torch.zeros(4, 64)}, r"others have shape \(4, 64\)"),
        ({"queries": torch.zeros(0, 1, 8, 8)}, "at least one row"),
    ],
)
def test_a_setting_that_does_not_fit(setting, changed, why):
    with pytest.raises(InputError, match=why):
        dataclasses.replace(setting, **changed)


def test_the_mean_with_others_is_theirs_in_part(model, known):
    x = known.test_inputs
    own, among = (
        answers(one, x).softmax(1) if one is model else answers(one, x)
        for one in (model, ATTACKS["among-1"](model, known, 0))
    )
    assert torch.allclose(among.sum(1), torch.ones(len(x)), atol=1e-5)
    assert (among - own / 2).min() >= -1e-6
    assert not torch.allclose(among, own, atol=1e-2)


def test_the_mean_may_be_served_as_labels(model, known):
    told, mean = (answers(ATTACKS[name](model, known, 0), known.test_inputs) for name in ("among-2-labels", "among-2"))
    assert torch.equal(told, mean.argmax(1))


@pytest.mark.parametrize(("name", "least", "most"), [("at-random", 0.03, 0.2), ("unsure", 0.03, 0.2)])
def test_a_tenth_is_answered_at_random(name, least, most, model, known):
    plain, told = (answers(one, known.test_inputs).argmax(1) for one in (model, ATTACKS[name](model, known, 0)))
    assert least < (plain != told).float().mean() < most


def test_eight_levels_are_left_of_an_input(model, known):
    seen = ATTACKS["3-bits"](model, known, 0).entering(known.test_inputs)
    assert len(seen.unique()) <= 8
