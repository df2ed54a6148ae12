"""A sheet holds no key and goes anywhere; what comes back is judged as if it had been asked here."""

import dataclasses
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image
from thieves import Thief, table

import wmplug
from wmplug import verify
from wmplug.claim.questions import Answers, Questions, ask
from wmplug.claim.scanning import scan
from wmplug.claim.verification import judge
from wmplug.errors import InputError, SuspectError
from wmplug.tasks import Classes, Said
from wmplug.watermark.carriers import digest


def honest(batch):
    """An unmarked model that processes elsewhere can import."""
    return [int(np.asarray(x).astype(int).sum()) % 10 for x in batch]


def moody(batch):
    """Answers some inputs with scores, and raises on others."""
    if len(batch) > 1 or digest(batch[0])[0] in "01":
        raise RuntimeError("not in the mood")
    return [np.eye(10)[int(digest(batch[0])[:4], 16) % 10]]


def judged(mark, answers, **options):
    """The verdict on answers, which names them as given; and the same without what it names."""
    verdict = judge(mark, answers, **options)
    assert str(verdict).endswith("; tries NOT COUNTED")
    assert "; answers AS GIVEN" in str(verdict)
    return plain(verdict)


def plain(verdict):
    return dataclasses.replace(verdict, choices=())


def put(mark, suspect):
    return ask(Questions.of(mark.triggers), Simple(suspect))


class Simple:
    def __init__(self, function):
        self.description, self.function = function.__name__, function

    def answer(self, inputs):
        return self.function(inputs)


@pytest.mark.parametrize("suspect", [honest, moody])
def test_what_was_asked_elsewhere_is_judged_as_here(mark, grouped, suspect):
    for one in (mark, grouped):
        answers = put(one, suspect)
        direct = plain(verify(one, Simple(suspect), exhaustive=True, keys=2))
        assert judged(one, answers, keys=2) == direct
        assert judged(one, Answers.from_json(answers.to_json()), keys=2) == direct
        assert judged(one, pickle.loads(pickle.dumps(answers)), keys=2) == direct
    assert direct.failed == (0 if suspect is honest else sum(one is None for one in answers.said))


def test_the_order_of_a_sheet_does_not_matter(grouped):
    sheet = Questions.of(grouped.triggers)
    mixed = sheet.only(np.random.default_rng(0).permutation(len(sheet)))
    thief = Thief(grouped, 3)
    direct = plain(verify(grouped, thief, exhaustive=True))
    assert judged(grouped, ask(mixed, thief)) == judged(grouped, ask(sheet, thief)) == direct


def test_some_whole_draws_are_judged_alone(grouped):
    rows = np.concatenate(grouped.triggers.groups[::2])
    answers = ask(Questions.of(grouped.triggers, rows), Thief(grouped))
    verdict = judged(grouped, answers)
    assert (verdict.draws, verdict.queries, verdict.matches) == (10, len(rows), len(rows))
    direct = verify(grouped, Thief(grouped), exhaustive=True, rows=rows.tolist())
    assert dataclasses.replace(verdict, triggers=len(rows)) == plain(direct)
    for one in (judge(grouped, answers), direct):
        assert "; rows NOT COMMITTED" in str(one)


def test_answers_that_do_not_fit_are_refused(mark, grouped, theirs):
    torn = ask(Questions.of(grouped.triggers, grouped.triggers.groups[0][:2]), Thief(grouped))
    with pytest.raises(InputError, match=r"only some rows of draw .* were answered: a draw is judged as a whole"):
        judge(grouped, torn)
    with pytest.raises(InputError, match="none of 1 answers is to a row"):
        judge(mark, Answers("s", mark.task, np.array([10**6]), (Said(1),)))
    with pytest.raises(InputError, match="is a path: open the watermark"):
        judge("mark.wm", torn)
    with pytest.raises(InputError, match="keys=0"):
        judge(mark, put(mark, honest), keys=0)
    for text in ("nonsense", "{}", '{"schema": "other"}', "[]", '{"schema": "wmplug/answers-to-a-sheet/1"}'):
        with pytest.raises(SuspectError, match="not answers to a sheet"):
            Answers.from_json(text)


def test_a_sheet_holds_no_key_and_no_answer(mark):
    sheet = Questions.of(mark.triggers)
    sent = pickle.dumps(sheet)
    assert not [p for p in ("input", "label", "schedule", "disclosure") if mark.subkeys.key(p) in sent]
    swapped = dataclasses.replace(mark, triggers=dataclasses.replace(mark.triggers, symbols=9 - mark.triggers.symbols))
    assert pickle.dumps(Questions.of(swapped.triggers)) == sent
    again = pickle.loads(sent)
    assert judged(mark, ask(again, Thief(mark))) == plain(verify(mark, Thief(mark), exhaustive=True))
    again.given(0, 1)[0][:] = 0
    assert digest(again.inputs) == digest(sheet.inputs)


@pytest.mark.parametrize("form", ["array", "pil", "text"])
def test_a_sheet_goes_through_json(owner, digits, form):
    carriers = {
        "array": digits[0] / np.float32(255),
        "pil": [Image.fromarray(x) for x in digits[0][:50]],
        "text": [f"word{i % 60} word{i % 59} word{i % 58}" for i in range(600)],
    }[form]
    mark = wmplug.create(owner, scheme="random-label", carriers=carriers, classes=10, triggers=30)
    sheet = Questions.of(mark.triggers)
    again = Questions.from_json(sheet.to_json())
    assert (again.form, again.task, again.rows.tolist()) == (form, Classes(10), sheet.rows.tolist())
    assert digest(again.inputs) == digest(sheet.inputs)
    assert type(again.given(0, 1)[0]) is type(mark.triggers.row(0))
    for text in ("nonsense", "{}", "[]", sheet.to_json().replace(form, "sound"), sheet.to_json().replace("sheet", "s")):
        with pytest.raises(InputError, match="not a sheet of questions"):
            Questions.from_json(text)


def test_answers_come_back_from_json_as_they_were(mark):
    answers = ask(Questions.of(mark.triggers), Simple(moody))
    again = Answers.from_json(answers.to_json())
    assert (again.suspect, again.task, again.rows.tolist()) == ("moody", Classes(10), answers.rows.tolist())
    for one, other in zip(answers.said, again.said, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.answer == other.answer
            assert np.array_equal(one.scores, other.scores)
    assert json.loads(answers.to_json())["classes"] == 10


def test_a_suspect_that_names_its_scores_is_read_by_name(owner, digits):
    names = [f"digit {i}" for i in range(10)]
    mark = wmplug.create(owner, scheme="random-label", carriers=digits[0], classes=names, triggers=40)
    known = thief_of(mark)
    suspect = Simple(lambda batch: np.eye(10)[known(batch)][:, ::-1])
    assert not verify(mark, suspect).proven
    suspect.names = names[::-1]
    assert verify(mark, suspect).proven


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_what_failed_is_asked_again_so_often(mark, retries):
    calls = []

    class Failing:
        description = "failing"

        def answer(self, inputs):
            calls.append(len(inputs))
            raise ValueError("no")

    answers = ask(Questions.of(mark.triggers), Failing(), retries=retries)
    assert answers.said == (None,) * 100
    assert calls == [100] + [1] * (100 * retries)
    assert isinstance(answers.cause, ValueError)
    assert str(pickle.loads(pickle.dumps(answers)).cause) == "ValueError: no"


def thief_of(mark):
    known = table(mark)
    return lambda batch: [known.get(np.asarray(x).tobytes(), 0) for x in batch]


def test_a_scan_finds_whose_mark_a_suspect_has(mark, theirs):
    targets = {"copy": thief_of(mark), "another": thief_of(theirs), "honest": honest, "broken": lambda batch: 1 / 0}
    steps = []
    found = scan({"Ada": mark, "Eve": theirs}, targets, progress=lambda *step: steps.append(step))
    assert found.accused() == found.worth_a_look() == (("copy", "Ada"), ("another", "Eve"))
    assert list(found.failed) == ["broken"]
    assert "answered none of 200 queries" in str(found.failed["broken"])
    assert found.queries == dict.fromkeys(("copy", "another", "honest"), 200)
    assert steps[-1] == (6, 8)
    for name, one in (("Ada", mark), ("Eve", theirs)):
        direct = verify(one, targets["copy"], exhaustive=True)
        assert found.verdicts["copy"][name] == direct


def test_a_scan_asks_on_other_processes_and_the_keys_stay(mark, theirs):
    marks = {"Ada": mark, "Eve": theirs}
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = scan(marks, {"honest": honest}, map=pool.map)
    here = scan(marks, {"honest": honest}).verdicts["honest"]
    assert {name: plain(verdict) for name, verdict in found.verdicts["honest"].items()} == {
        name: plain(verdict) for name, verdict in here.items()
    }
    for name in marks:
        assert "answers AS GIVEN" in str(found.verdicts["honest"][name])
        assert "answers AS GIVEN" not in str(here[name])


def test_a_scan_of_what_does_not_fit_is_refused(mark, owner, digits):
    with pytest.raises(InputError, match="no watermarks"):
        scan({}, {"honest": honest})
    other = wmplug.create(owner, scheme="random-label", carriers=digits[0], classes=9)
    with pytest.raises(InputError, match="differ in task"):
        scan({"one": mark, "two": other}, {"honest": honest})
    larger = wmplug.create(owner, scheme="random-label", carriers=digits[0].repeat(2, axis=1), classes=10)
    with pytest.raises(InputError, match="differ in shape"):
        scan({"one": mark, "two": larger}, {"honest": honest})
