"""A service's answers, and the audit of a mark that is in them: the key never goes where the attacks run."""

import copy
import dataclasses
import pickle

import pytest
import torch

from wmplug.audit import ATTACKS, ServiceAnswers, ask_service, run
from wmplug.audit import digits as laboratory
from wmplug.audit.copyist import askings
from wmplug.audit.training import answers
from wmplug.errors import InputError
from wmplug.serving import Log, Serving
from wmplug.testing import refuse_secrets


def shares(model, images):
    """(n, 10) probabilities of pictures."""
    return answers(model, torch.from_numpy(images).float()[:, None] / 255).softmax(1).numpy()


@pytest.fixture(scope="module")
def served(twin, tmp_path_factory):
    """(mark as it asks the log, the key's mark, the attackers' setting) of the digits' service."""
    images, labels = laboratory.owned()
    reference = laboratory.trained(None, 1)
    mark = laboratory.mark("served", cells=100, pool=shares(reference, images))
    setting = dataclasses.replace(laboratory.copying(), epochs=20, tuning_epochs=8)
    log = Log(tmp_path_factory.mktemp("log") / "decisions.db", mark)
    serving = Serving(mark, twin, log)
    serving.answer(laboratory.pictures(setting.asked))
    decided = log.decided()
    asking = mark.with_queries(decided, carriers=images, labels=labels, pool=shares(reference, decided.inputs))
    log.close()
    replica = Serving(mark, twin)
    return asking, mark, ask_service(setting, lambda x: replica.answer(laboratory.pictures(x)))


@pytest.fixture(scope="module")
def report(served, twin):
    mark, _, setting = served
    plain = dataclasses.replace(setting, service=None)
    controls = {"unmarked clone": ATTACKS["soft-clone"](twin, plain, 0)}
    return run(mark, twin, setting, ["soft-clone", "fine-tune"], controls=controls)


def test_a_table_answers_what_was_asked_in_any_order():
    x = torch.arange(12.0).reshape(4, 3)
    table = ServiceAnswers(x, 10 * x)
    rows = torch.tensor([3, 0, 3])
    for one in (table, copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(answers(one, x[rows]), 10 * x[rows])
    with pytest.raises(InputError, match="never asked 1 of these 2 inputs"):
        table(torch.stack([x[0], x[1] + 1]))
    with pytest.raises(InputError, match="give a row for each"):
        ServiceAnswers(x, x[:3])


def test_all_that_the_attacks_ask_is_asked_beforehand(setting):
    asked = []

    def answer(x):
        asked.append(x)
        return x.flatten(1)[:, :10]

    found = ask_service(setting, answer)
    expected = [setting.asked, *askings(setting), setting.others]
    assert [one.shape for one in asked] == [one.shape for one in expected]
    for one in expected:
        assert torch.equal(found.service(one), one.flatten(1)[:, :10])
    assert setting.service is None


def test_extraction_asks_the_service_and_theft_takes_the_model(twin, setting):
    four = ServiceAnswers(setting.asked, torch.eye(10)[[4] * len(setting.asked)])
    behind, x = dataclasses.replace(setting, service=four), setting.test_inputs
    assert (answers(ATTACKS["hard-clone"](twin, behind, 0), x).argmax(1) == 4).all()
    plain, halved = (answers(ATTACKS["fp16"](twin, one, 0), x) for one in (setting, behind))
    assert torch.equal(plain, halved)


def test_a_clone_of_the_answers_shows_the_mark_and_nothing_else_does(report):
    clone, own = report["soft-clone"], report["own model"]
    assert clone.log10_p < -3
    for row in (own, report["fine-tune"], report["unmarked clone"]):
        assert row.log10_p > -2
    assert min(row.rival_worst for row in report.rows) > -3


def test_the_key_decided_some_answers_and_only_where_the_model_is_unsure(served, twin):
    _, _, setting = served
    own, told = answers(twin, setting.asked), answers(setting.service, setting.asked)
    changed = (own != told).any(1)
    best = own.softmax(1).topk(2).values
    assert 20 < changed.sum() < 0.2 * len(changed)
    assert (best[:, 0] - best[:, 1])[changed].max() < 0.1
    assert 0.2 < (own.argmax(1) != told.argmax(1))[changed].float().mean() < 0.8


def test_what_goes_to_workers_holds_no_secret(served, twin):
    asking, mark, setting = served
    sent = pickle.dumps((twin, setting, [(ATTACKS["majority"], 0)]))
    refuse_secrets(mark, sent, "what workers get")
    refuse_secrets(asking, sent, "what workers get")


def test_a_worker_that_gets_the_setting_pickled_makes_the_same(served, twin):
    _, _, setting = served
    short = dataclasses.replace(setting, epochs=2)
    sent = pickle.loads(pickle.dumps(short))
    one, same = (answers(ATTACKS["soft-clone"](twin, one, 0), setting.test_inputs) for one in (short, sent))
    assert torch.equal(one, same)


def test_other_answers_are_another_audit(served, twin, tmp_path):
    mark, _, setting = served
    run(mark, twin, setting, ["fp16"], folder=tmp_path)
    run(mark, twin, setting, ["fp16"], folder=tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 1
    table = setting.service
    other = dataclasses.replace(setting, service=ServiceAnswers(table.inputs, table.scores + 1))
    run(mark, twin, other, ["fp16"], folder=tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 2


def test_a_mark_of_answers_needs_a_service(served, twin, setting):
    with pytest.raises(InputError, match=r"'served' is in what a service answers, .* ask_service"):
        run(served[0], twin, setting, ["hard-clone"])
    with pytest.raises(InputError, match="service is a str: give a torch module"):
        dataclasses.replace(setting, service="https://api.example")
