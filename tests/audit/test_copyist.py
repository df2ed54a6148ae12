"""What a copyist trains on: each attack on a task so small that the right rows, inputs and targets are known."""

import dataclasses

import pytest
import torch
from torch import nn

from wmplug.audit import ATTACKS, Setting, copyist
from wmplug.audit.training import answers
from wmplug.errors import InputError

CLASSES, QUERIES = 3, 60


class Answering(nn.Module):
    """A model that is a function of the inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def logits(labels, lead=5.0):
    return lead * nn.functional.one_hot(labels, CLASSES).float()


def nearest(x):
    """The true label: the largest of three numbers."""
    return x.argmax(1)


@pytest.fixture
def setting():
    drawn = torch.Generator().manual_seed(3)
    x = torch.rand(3 * QUERIES, CLASSES, generator=drawn) + nn.functional.one_hot(
        torch.arange(3 * QUERIES) % CLASSES, CLASSES
    )
    own, queries, test = x.split(QUERIES)
    return Setting(
        inputs=own,
        labels=nearest(own),
        test_inputs=test,
        test_labels=nearest(test),
        classes=CLASSES,
        architectures=(lambda: nn.Linear(CLASSES, CLASSES), lambda: nn.Sequential(nn.Linear(CLASSES, CLASSES))),
        queries=queries,
        epochs=60,
        learning_rate=0.1,
    )


@pytest.fixture
def fits(monkeypatch):
    """What networks are trained on, in order: (inputs, targets, epochs)."""
    seen, real = [], copyist.fit

    def fit(model, inputs, targets, setting, epochs):
        seen.append((inputs, targets, epochs))
        return real(model, inputs, targets, setting, epochs)

    monkeypatch.setattr(copyist, "fit", fit)
    return seen


def rows_of(inputs, all_inputs):
    """The rows of all inputs that some are."""
    return {int((all_inputs == one).all(1).nonzero()) for one in inputs}


def test_the_least_sure_tenth_is_dropped(setting, fits):
    lead = torch.linspace(1, 4, QUERIES)[torch.randperm(QUERIES, generator=torch.Generator().manual_seed(1))]
    known = {tuple(x.tolist()): float(value) for x, value in zip(setting.asked, lead, strict=True)}
    unsure = Answering(lambda x: logits(nearest(x), torch.tensor([[known[tuple(one.tolist())]] for one in x])))
    ATTACKS["drop-unsure"](unsure, setting, 0)
    ((inputs, targets, epochs),) = fits
    assert rows_of(inputs, setting.asked) == set(lead.argsort()[6:].tolist())
    assert torch.equal(targets, nearest(inputs))
    assert epochs == 60


def lying(setting, rows):
    """A model that errs on some of the queries, and on nothing that is not exactly one of them."""

    def answer(x):
        hit = (x[:, None] == setting.asked[rows]).all(2).any(1)
        return logits((nearest(x) + hit.long()) % CLASSES)

    return Answering(answer)


def test_what_own_networks_dispute_is_dropped(setting, fits):
    lies = [2, 17, 33, 58]
    ATTACKS["drop-disputed"](lying(setting, lies), setting, 0)
    assert len(fits) == 6
    for inputs, _, _ in fits[:-1]:
        assert len(inputs) == QUERIES * 4 // 5
    kept = rows_of(fits[-1][0], setting.asked)
    assert not kept & set(lies)
    assert len(kept) > 45


def test_each_network_judges_answers_that_it_did_not_learn(setting, fits, monkeypatch):
    judged, real = [], copyist.answers

    def asked(model, inputs):
        judged.append(inputs)
        return real(model, inputs)

    monkeypatch.setattr(copyist, "answers", asked)
    ATTACKS["drop-disputed"](lying(setting, []), setting, 0)
    folds = [rows_of(inputs, setting.asked) for inputs in judged[1:]]
    for (learnt, _, _), fold in zip(fits, folds, strict=False):
        assert not rows_of(learnt, setting.asked) & fold
    assert sorted(row for fold in folds for row in fold) == list(range(QUERIES))


def test_a_majority_is_of_nine_noisy_askings(setting, fits):
    asked = []

    def answer(x):
        asked.append(x)
        return logits(nearest(x))

    lies = [1, 8]
    copy = Answering(lambda x: answer(x) if len(x) == QUERIES else None)
    ATTACKS["majority"](copy, setting, 0)
    assert len(asked) == 9
    away = torch.stack(asked) - setting.asked
    assert 0 < away.abs().mean() < 0.1
    assert len({one.numpy().tobytes() for one in asked}) == 9
    votes = torch.stack([nearest(one) for one in asked])
    assert (votes != nearest(setting.asked)).any()  # noise changes an answer, and the majority not
    ((inputs, targets, _),) = fits
    assert torch.equal(inputs, setting.asked)
    assert torch.equal(targets, votes.mode(0).values)
    fits.clear()
    ATTACKS["majority"](lying(setting, lies), setting, 0)  # who lies about exact queries alone is heard by nobody
    assert torch.equal(fits[0][1][lies], nearest(setting.asked)[lies])


def test_agreement_keeps_what_another_service_says_too(setting, fits):
    ATTACKS["agreement"](lying(setting, [4, 5, 6]), setting, 0)
    (first, labels, _), (kept, _, _) = fits
    assert torch.equal(first, setting.inputs)
    assert torch.equal(labels, setting.labels)
    left = rows_of(kept, setting.asked)
    assert not left & {4, 5, 6}
    assert len(left) > 45


def test_the_least_sure_are_relabelled_by_what_the_others_taught(setting, fits):
    unsure = setting.asked.topk(2, 1).values.diff().abs().squeeze().argsort(descending=True)[:6]
    wrong = lying(setting, unsure)

    def answer(x):
        hit = (x[:, None] == setting.asked[unsure]).all(2).any(1)
        return torch.where(hit[:, None], 0.1, 1.0) * wrong(x)

    ATTACKS["relabel"](Answering(answer), setting, 0)
    (learnt, _, _), (inputs, targets, _) = fits
    assert rows_of(learnt, setting.asked) == set(range(QUERIES)) - set(unsure.tolist())
    assert torch.equal(inputs, setting.asked)
    assert torch.equal(targets, nearest(setting.asked))  # the wrong ones, which are clear to a network, are right again


def test_inputs_change_in_each_epoch(setting, fits):
    ATTACKS["augment"](lying(setting, []), dataclasses.replace(setting, epochs=3), 0)
    assert [epochs for _, _, epochs in fits] == [1, 1, 1]
    first, second, third = (inputs for inputs, _, _ in fits)
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)
    assert float((first - setting.asked).std() / setting.asked.std()) == pytest.approx(0.25, rel=0.2)
    assert all(torch.equal(targets, nearest(setting.asked)) for _, targets, _ in fits)


def test_pictures_are_shifted_and_half_of_them_mirrored():
    torch.manual_seed(0)
    across = torch.arange(8.0).expand(400, 1, 8, 8)
    moved = copyist._changed(across)
    slopes = moved[:, 0, 4, 5] - moved[:, 0, 4, 2]
    assert slopes.abs() == pytest.approx(torch.full((400,), 3.0), abs=1e-4)
    assert 0.4 < (slopes > 0).float().mean() < 0.6
    middle = moved[:, 0, 4, 3:5].mean(1) - 3.5
    assert 0.9 < middle.abs().max() <= 1 + 1e-4
    down = copyist._changed(across.mT)
    assert (down[:, 0, 5, 4] - down[:, 0, 2, 4] > 0).all()  # nothing stands on its head


def test_mixtures_have_mixed_labels(setting, fits):
    corners = nn.functional.one_hot(torch.arange(QUERIES) % CLASSES, CLASSES).float()
    ATTACKS["mixup"](lying(setting, []), dataclasses.replace(setting, queries=corners, epochs=2), 0)
    (first, targets, epochs), (second, _, _) = fits
    assert epochs == 1
    assert torch.allclose(first, targets)  # each corner is its own label
    assert (targets.amax(1) < 0.99).float().mean() > 0.4
    assert not torch.allclose(first, second)


def test_a_tenth_of_a_smoothed_label_is_uniform(setting, fits):
    ATTACKS["label-smoothing"](lying(setting, []), setting, 0)
    ((_, targets, _),) = fits
    assert torch.equal(targets.argmax(1), nearest(setting.asked))
    assert targets.amax(1) == pytest.approx(torch.full((QUERIES,), 0.9 + 0.1 / 3))
    assert targets.sum(1) == pytest.approx(torch.ones(QUERIES))


def test_training_stops_early_and_the_best_epoch_is_kept(setting, fits, monkeypatch):
    rights, held, weights = iter([0.5, 0.7, 0.6, 0.65, 0.7, 0.9]), [], []

    def accuracy(model, inputs, labels):
        held.append(rows_of(inputs, setting.asked))
        weights.append(model.weight.detach().clone())
        return next(rights)

    monkeypatch.setattr(copyist, "accuracy", accuracy)
    clone = ATTACKS["early-stop"](lying(setting, []), setting, 0)
    assert len(fits) == 5
    assert torch.equal(clone.weight, weights[1])
    assert not torch.equal(clone.weight, weights[4])
    assert len(held[0]) == QUERIES // 5
    assert rows_of(fits[0][0], setting.asked) == set(range(QUERIES)) - held[0]


def test_a_second_clone_learns_from_the_first(setting, fits):
    noise = torch.randint(CLASSES, (QUERIES,), generator=torch.Generator().manual_seed(0))
    random = Answering(lambda x: logits(noise[(x[:, None] == setting.asked).all(2).int().argmax(1)]))
    first = answers(ATTACKS["hard-clone"](random, setting, 0), setting.asked).argmax(1)
    second = ATTACKS["second-clone"](random, setting, 0)
    ((inputs, targets, _),) = fits
    assert torch.equal(inputs, setting.asked)
    assert torch.equal(targets, first)
    assert not torch.equal(targets, noise)
    assert isinstance(second, nn.Sequential)  # the other architecture


def test_a_copyist_whom_nothing_is_left(setting):
    always = Answering(lambda x: logits((nearest(x) + 1) % CLASSES))
    with pytest.raises(InputError, match="of 60 answers none is left to train on"):
        ATTACKS["agreement"](always, dataclasses.replace(setting, epochs=200), 0)


@pytest.mark.parametrize("name", ["drop-unsure", "relabel"])
def test_labels_show_no_confidence(setting, name):
    with pytest.raises(InputError, match="confidence shows in scores alone"):
        ATTACKS[name](Answering(nearest), setting, 0)
