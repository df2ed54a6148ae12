"""The grid: verdicts with their controls, resumed and parallel; nothing secret leaves."""

import dataclasses
import json
import math

import pytest
import torch
from PIL import Image

import wmplug
from wmplug.audit import ATTACKS, Attack, Report, grid, run
from wmplug.audit import digits as laboratory
from wmplug.audit.drawing import heat_map
from wmplug.errors import InputError, SuspectError
from wmplug.tasks import Classes
from wmplug.testing import refuse_secrets

NAMES = ("prune-50", "labels-only", "hard-clone", "clusters-5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def report(mark, model, twin, setting, folder):
    return run(mark, model, setting, NAMES, (0, 1), controls={"unmarked twin": twin}, folder=folder)


def test_the_model_is_proven_and_the_controls_are_not(report):
    own, control = report["own model"], report["unmarked twin"]
    assert own.state == "proven"
    assert own.cost == 0
    assert dict(own.parts).keys() == {"triggers", "signs"}
    assert control.state == "inconclusive"
    assert control.log10_p > -2
    assert max(row.rival_worst for row in report.rows) <= 0
    assert min(row.rival_worst for row in report.rows) > -3


def test_rows_say_mean_and_worst_over_seeds(report):
    cells = [cell for cell in report.cells if cell.name == "hard-clone"]
    values = [cell.verdict.log10_p for cell in cells]
    row = report["hard-clone"]
    assert row.seeds == 2
    assert row.log10_p == pytest.approx(sum(values) / 2)
    assert row.worst == max(values)
    own = report["own model"].accuracy
    assert row.cost == pytest.approx(100 * (sum(c.accuracy for c in cells) / 2 - own))


def test_verdicts_are_exhaustive_and_those_of_verify(report, mark, model):
    (own,) = (cell for cell in report.cells if cell.name == "own model")
    assert own.verdict.p_is == "exact"
    assert own.verdict.log10_p == wmplug.verify(mark, model, exhaustive=True).log10_p


def test_labels_only_is_judged_on_labels(report):
    labels, scores = report["labels-only"], report["own model"]
    found = [[cell.verdict.test for cell in report.cells if cell.name == name] for name in ("labels-only", "own model")]
    assert not any("scores" in test for test in found[0])
    assert all("with scores" in test for test in found[1])
    assert dict(labels.parts)["triggers"] >= dict(scores.parts)["triggers"] - math.log10(2)
    assert dict(labels.parts)["signs"] != dict(scores.parts)["signs"]


def test_a_detector_tells_how_many_triggers_it_found(report):
    assert 0 <= report["clusters-5"].found <= 1
    assert report["hard-clone"].found is None


def test_the_table_shows_every_row(report):
    lines = str(report).splitlines()
    for name in ("own model", *NAMES, "unmarked twin"):
        assert sum(line.strip().startswith(f"{name} ") for line in lines) == 1
    assert "other key" in str(report)


def test_json_comes_back_and_holds_no_secret(report, mark, folder):
    text = report.to_json()
    assert Report.from_json(text) == report
    refuse_secrets(mark, text.encode(), "the report")
    cells = list((folder / "cells").iterdir())
    assert len(cells) == 2 * len(NAMES)
    for cell in cells:
        refuse_secrets(mark, cell.read_bytes(), cell.name)
        assert str(mark.triggers.symbols.tolist()) not in cell.read_text()
    rows = json.loads(text)["rows"]
    assert [row["name"] for row in rows] == ["own model", *NAMES, "unmarked twin"]


def test_the_picture_is_drawn(report, tmp_path):
    heat_map(tmp_path / "audit.png", report)
    with Image.open(tmp_path / "audit.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 300
        assert len(drawn.convert("RGB").getcolors(2**24)) > 50


def test_two_processes_find_the_same(report, mark, model, twin, setting):
    found = run(mark, model, setting, NAMES, controls={"unmarked twin": twin}, workers=2)
    assert found.cells == tuple(cell for cell in report.cells if cell.seed == 0)


class Counted:
    """An attack that counts its calls."""

    def __init__(self):
        self.calls = []
        self.attack = Attack("counted", "removal", "nothing", self)

    def __call__(self, model, setting, seed):
        self.calls.append(seed)
        return model


def test_an_interrupted_audit_goes_on(mark, model, setting, tmp_path):
    counted = Counted()

    def stop(done, most):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(mark, model, setting, [counted.attack], (0, 1, 2), folder=tmp_path, progress=stop)
    assert counted.calls == [0, 1]
    seen = []
    report = run(
        mark,
        model,
        setting,
        [counted.attack],
        (0, 1, 2),
        folder=tmp_path,
        progress=lambda done, most: seen.append((done, most)),
    )
    assert counted.calls == [0, 1, 2]
    assert seen == [(2, 3), (3, 3)]
    assert report["counted"].seeds == 3
    assert report["counted"].log10_p == pytest.approx(report["own model"].log10_p)


@pytest.mark.parametrize("what", ["model", "setting", "mark", "preprocess"])
def test_a_stale_cell_is_not_used(mark, model, setting, tmp_path, what, monkeypatch):
    counted = Counted()
    run(mark, model, setting, [counted.attack], folder=tmp_path)
    if what == "model":
        model = laboratory.network()
    elif what == "setting":
        setting = dataclasses.replace(setting, tuning_epochs=3)
    elif what == "preprocess":
        mark = dataclasses.replace(mark, preprocess=lambda x, y: (1 - laboratory.example(x, y)[0], y))
    else:
        mark = dataclasses.replace(mark, id="0" * 32)
    run(mark, model, setting, [counted.attack], folder=tmp_path)
    assert counted.calls == [0, 0]


def test_an_attack_that_cannot_be_made_is_said_to_be_so_and_tried_again(mark, model, setting, tmp_path):
    poor = dataclasses.replace(setting, others=None)
    for _ in range(2):
        report = run(mark, model, poor, ["foreign-clone", "int8"], folder=tmp_path)
        assert report["foreign-clone"].log10_p is None
        assert "foreign-clone: a clone by inputs of another domain needs" in str(report)
        assert report["int8"].state == "proven"
    assert [file.name[:4] for file in (tmp_path / "cells").iterdir()] == ["int8"]
    assert Report.from_json(report.to_json()) == report
    heat_map(tmp_path / "audit.png", report)


def raising(model, setting, seed):
    raise ZeroDivisionError("of my own")


def giving_none(model, setting, seed):
    return None


def test_attacks_of_ones_own_that_fail_leave_the_others(mark, model, setting):
    broken = [Attack("mine", "removal", "breaks", raising), Attack("none", "removal", "gives nothing", giving_none)]
    report = run(mark, model, setting, [*broken, "fp16"])
    assert "attack 'mine' failed (ZeroDivisionError: of my own)" in str(report)
    assert "attack 'none' failed (AttributeError" in str(report)
    assert report["fp16"].state == "proven"


def test_a_cell_that_is_damaged_is_made_anew(mark, model, setting, tmp_path):
    whole = run(mark, model, setting, ["fp16"], folder=tmp_path)
    (file,) = (tmp_path / "cells").iterdir()
    for damage in ("{", "[]", "{}", file.read_text().replace('"seed"', '"sead"')):
        file.write_text(damage)
        with pytest.warns(UserWarning, match=f"{file.name} is not a cell"):
            assert run(mark, model, setting, ["fp16"], folder=tmp_path) == whole


def test_a_name_is_no_path(mark, model, setting, tmp_path):
    attack = Attack("../../a b/ü", "removal", "does nothing", Counted())
    for _ in range(2):
        run(mark, model, setting, [attack], folder=tmp_path / "audit")
    assert attack.function.calls == [0]
    assert len(list((tmp_path / "audit" / "cells").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["audit"]


def test_a_rivals_own_mark_may_be_the_other_key(mark, model, setting, rival, digits):
    other = wmplug.create(
        rival, scheme="random-label", carriers=digits[0], classes=10, triggers=40, preprocess=laboratory.example
    )
    report = run(mark, model, setting, ["fp16"], rival=other)
    (own, _) = report.cells
    assert own.rival.watermark == other.id
    assert own.rival.queries == 40
    assert own.rival.log10_p > -3


def test_the_other_key_asks_the_same_and_answers_otherwise(mark):
    other = grid.other_key(mark)
    assert other.triggers.plan is mark.triggers.plan
    agreeing = (other.triggers.symbols == mark.triggers.symbols)[-mark.triggers.plan.pattern.signs :].mean()
    assert 0.3 < agreeing < 0.7


def test_what_cannot_be_sent_to_processes(mark, model, setting):
    attack = Attack("own", "removal", "nothing", lambda model, setting, seed: model)
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        run(mark, model, setting, [attack, "int8"], workers=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attacks": ["prune-51"]}, "no attack is called 'prune-51'"),
        ({"seeds": ()}, "one or more, each once"),
        ({"seeds": (0, 0)}, "one or more, each once"),
        ({"seeds": (-1,)}, "whole numbers from 0 on"),
        ({"workers": 0}, "1 or more"),
        ({"model": "net"}, "model is a str: give a Module"),
        ({"setting": None}, "setting is a NoneType"),
        ({"mark": "mark.wm"}, "mark is a str: give a Watermark"),
        ({"rival": "rival.wm"}, "give a mark of another owner"),
        ({"controls": {"fp16": None}}, "rename them"),
    ],
)
def test_bad_input(mark, model, setting, change, why):
    given = {"mark": mark, "model": model, "setting": setting, "attacks": ["fp16"], **change}
    with pytest.raises(InputError, match=why):
        run(**given)


def test_the_mark_itself_is_no_rival(mark, model, setting):
    with pytest.raises(InputError, match="the mark itself"):
        run(mark, model, setting, ["fp16"], rival=mark)


def test_a_mark_of_another_task_is_refused(mark, model, setting):
    other = dataclasses.replace(mark, triggers=dataclasses.replace(mark.triggers, task=Classes(9)))
    with pytest.raises(InputError, match="mark has 9 classes, setting 10"):
        run(other, model, setting, ["fp16"])


def test_a_model_that_breaks_is_reported_with_the_rest(mark, model, setting):
    def broken(model, setting, seed):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(torch.nan)
        return model

    report = run(mark, model, setting, [Attack("broken", "removal", "NaN", broken), ATTACKS["fp16"]])
    assert "all were NaN" in report["broken"].failed
    assert report["fp16"].state == "proven"


def test_a_model_that_cannot_be_asked_stops_the_audit(mark, setting):
    with pytest.raises(SuspectError, match="answered none"):
        run(mark, torch.nn.Linear(3, 10), setting, ["fp16"])
