"""One run, without a framework."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from wmplug import Owner, create
from wmplug.errors import InjectionError, InputError, KeyFileError, SuspectError, VerificationError, VerificationWarning
from wmplug.register import Register
from wmplug.suspects.functions import CallableSuspect
from wmplug.training.loop import At
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Options

LOGGED = [f"watermark/{name}" for name in ("log10_p", "log10_e", "matches", "rate", "state")]


def begun(mark, loop, **options):
    marking = Marking(mark, loop, Options(**options))
    marking.begin()
    marking.start(data=[1, 2], arguments={}, model=None)
    return marking


def test_a_look_is_logged_in_numbers_and_kept(mark, loop):
    marking = begun(mark, loop, rate=0.1)
    assert marking.verdict is None
    verdict = marking.checkpoint(At(3, 1))
    assert verdict.proven
    assert marking.verdict is verdict
    ((numbers, at),) = loop.logged
    assert at == At(3, 1)
    assert list(numbers) == LOGGED
    assert all(type(value) in (int, float) for value in numbers.values())
    assert numbers["watermark/log10_e"] == verdict.log10_e
    assert (numbers["watermark/state"], numbers["watermark/rate"]) == (2, 0.1)
    assert marking.history == [{"step": 3, "epoch": 1, **numbers}]


@pytest.mark.parametrize(("log10_e", "state"), [(0.0, 0), (3.0, 1), (9.0, 2)])
def test_the_state_is_logged_as_a_number(mark, loop, monkeypatch, log10_e, state):
    marking = begun(dataclasses.replace(mark, record=None), loop)  # other keys in the register would count as tries
    monkeypatch.setattr("wmplug.claim.channels.betting.log10_e_path", lambda *draws: np.array([log10_e]))
    marking.look(At(1))
    assert loop.logged[0][0]["watermark/state"] == state


def test_a_run_takes_the_path_of_a_watermark(owner, digits, mark, loop, tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "correct horse battery staple")
    file = mark.save(tmp_path / "mark.wm")
    for path in (file, str(file)):
        assert Marking(path, loop, Options()).mark.id == mark.id
    with pytest.raises(KeyFileError, match="missing"):
        Marking(tmp_path / "missing.wm", loop, Options())
    alone = Owner.create(tmp_path / "alone", name="Ada", passphrase="correct horse battery staple", scrypt_n=2**10)
    given = {"scheme": "random-label", "carriers": digits[0][:200], "classes": 10}
    other = create(alone, preprocess=lambda x, y: (x, y), **given).save(tmp_path / "other.wm")
    with pytest.raises(InputError, match="was made with preprocess="):
        Marking(other, loop, Options())


@pytest.mark.parametrize("how", ["warn", "raise", "stop"])
def test_a_mark_that_is_lost_acts_at_once_and_is_on_record_before(mark, loop, how):
    marking = begun(mark, loop, on_failure=how)
    marking.checkpoint(At(1))
    loop.model = loop.ignorant
    told = pytest.raises(VerificationError, match="proven earlier and is not proven at step 2")
    if how != "raise":
        told = pytest.warns(VerificationWarning, match="proven earlier and is not proven at step 2")
    with told:
        marking.checkpoint(At(2))
    assert loop.stopped == (how == "stop")
    assert len(marking.verdicts) == len(loop.logged) == 2
    last = list(Register(mark.register).entries())[-1]
    assert (last.type, last.body["step"], last.body["verdict"]["state"]) == ("training.checkpoint", 2, "inconclusive")


def test_a_loss_is_told_once_a_look(mark, loop):
    marking = begun(mark, loop)
    marking.checkpoint(At(1))
    loop.model = loop.ignorant
    with pytest.warns(VerificationWarning):
        marking.checkpoint(At(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert marking.checkpoint(At(2)) is marking.verdict  # of the same look
    assert len(marking.verdicts) == 2


@pytest.mark.parametrize("how", ["warn", "raise", "stop"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_model_that_is_not_proven_at_the_end(mark, loop, how, verify):
    marking = begun(mark, loop, on_failure=how)
    loop.model = loop.ignorant
    marking.checkpoint(At(1))
    told = pytest.raises(VerificationError) if how == "raise" else pytest.warns(VerificationWarning)
    with told as seen:
        marking.end(At(2), verify=verify, again=False, system=None, total=None)
    assert "does not prove the watermark" in str(seen.value if how == "raise" else seen[0].message)
    assert len(marking.verdicts) == 1 + verify
    assert list(Register(mark.register).entries())[-1].type == "training.finished"


def test_a_run_without_a_look_ends_in_silence(mark, loop):
    marking = begun(mark, loop, on_failure="raise")
    marking.end(At(2), verify=False, again=False, system=None, total=None)
    assert marking.verdict is None


@pytest.mark.parametrize("again", [True, False])
def test_the_weights_may_be_others_at_the_end_of_the_same_step(mark, loop, again):
    marking = begun(mark, loop)
    marking.checkpoint(At(1))
    marking.end(At(1), verify=True, again=again, system=None, total=None)
    assert len(marking.verdicts) == 1 + again


def nan(inputs):
    return np.full((len(inputs), 10), np.nan)


def test_a_model_that_cannot_be_asked_acts_by_on_failure(mark, loop):
    marking = begun(mark, loop)
    loop.model = nan
    with pytest.raises(SuspectError, match="NaN"):
        marking.look(At(1))
    with pytest.warns(VerificationWarning, match="step 1 cannot be verified.*NaN"):
        assert marking.checkpoint(At(1)) is None
    with pytest.warns(VerificationWarning, match="step 2 cannot be verified.*NaN"):
        marking.end(At(2), verify=True, again=False, system=None, total=None)
    assert list(Register(mark.register).entries())[-1].body["verdict"] is None
    raising = begun(mark, loop, on_failure="raise")
    with pytest.raises(VerificationError, match="cannot be verified"):
        raising.checkpoint(At(1))
    assert not marking.history


def test_all_processes_go_by_what_the_main_one_found(mark, loop):
    marking = begun(mark, loop)
    main = begun(mark, type(loop)(mark)).look(At(1))
    loop.model, loop.agree = loop.ignorant, lambda found: (main, [30.0])
    assert marking.look(At(1)) is main
    assert marking.state_dict()["looks"] == [30.0]
    loop.agree = lambda found: (SuspectError("elsewhere"), [30.0])
    with pytest.raises(SuspectError, match="elsewhere"):
        marking.look(At(2))


def test_auto_follows_the_verdicts_and_logs_the_rate_up_to_each(mark, loop):
    marking = begun(mark, loop, rate="auto")
    loop.model = loop.ignorant
    for step in range(3):
        marking.look(At(step))
    assert [numbers["watermark/rate"] for numbers, _ in loop.logged] == [0.06, 0.09, 0.135]
    assert loop.rates == [60_000, 90_000, 135_000, 202_500]
    assert marking.rate == 202_500


def test_the_last_look_leaves_the_rate(mark, loop):
    marking = begun(mark, loop, rate="auto")
    marking.end(At(1), verify=True, again=True, system=None, total=None)
    assert loop.rates == [60_000]


class TestResume:
    def test_looks_and_rate_go_on(self, mark, loop):
        first = begun(mark, loop, rate="auto")
        first.look(At(1))
        state = json.loads(json.dumps(first.state_dict()))
        again = Marking(mark, loop, Options(rate="auto"))
        again.load_state_dict(state)
        again.begin()
        assert again.rate == first.rate == loop.rates[-1]
        assert again.look(At(2)).looks == 2
        assert not any(key.hex() in str(state) for key in (mark.subkeys.key("label"), mark.subkeys.key("schedule")))

    def test_a_run_resumed_by_the_same_object_has_no_verdict_yet(self, mark, loop):
        marking = begun(mark, loop, rate="auto", on_failure="raise")
        loop.model = loop.ignorant
        marking.look(At(8))
        marking.load_state_dict(marking.state_dict())
        marking.begin()
        assert (marking.verdict, marking.history, len(marking.state_dict()["looks"])) == (None, [], 1)
        marking.end(At(8), verify=False, again=False, system=None, total=None)  # in silence
        assert marking.rate == 90_000

    def test_a_fixed_rate_stays_as_given(self, mark, loop):
        state = {**begun(mark, loop, rate="auto").state_dict(), "rate": 400_000}
        again = begun(mark, loop, rate=0.1)
        again.load_state_dict(state)
        assert again.rate == 100_000

    def test_a_state_of_another_watermark_is_left_alone(self, mark, foreign, loop):
        first = begun(mark, loop, rate="auto")
        first.look(At(1))
        other = begun(foreign, loop, rate="auto")
        other.load_state_dict(first.state_dict())
        assert other.state_dict()["looks"] == []
        assert other.rate == 60_000

    def test_a_second_run_starts_anew(self, mark, loop):
        marking = begun(mark, loop, rate="auto")
        marking.load_state_dict({**marking.state_dict(), "looks": [1.0]})
        assert marking.look(At(1)).looks == 2
        marking.end(At(1), verify=False, again=False, system=None, total=None)
        marking.begin()
        assert (marking.rate, marking.verdict, marking.history) == (60_000, None, [])
        assert marking.look(At(1)).looks == 1


class TestFiles:
    def test_they_are_logged_beside_and_in_the_sidecar(self, mark, loop, tmp_path):
        marking = begun(mark, loop)
        marking.checkpoint(At(5), beside=tmp_path / "wmplug.json", files=lambda: CallableSuspect(loop.knows))
        told = json.loads((tmp_path / "wmplug.json").read_text())
        assert told["watermark"] == mark.public
        assert told["verdict"]["state"] == told["saved"]["state"] == "proven"
        assert (told["step"], told["rate"]) == (5, 0.06)
        assert loop.logged[1][0].keys() == {name.replace("watermark/", "watermark/saved/") for name in LOGGED}

    def test_those_that_lost_the_mark_act_by_on_failure(self, mark, loop, tmp_path):
        marking = begun(mark, loop)
        with pytest.warns(VerificationWarning, match="the files in .* do not"):
            marking.checkpoint(At(5), files=lambda: CallableSuspect(loop.ignorant))
        with pytest.warns(VerificationWarning, match="the files of step 6 cannot be verified"):
            marking.checkpoint(At(6), files=lambda: CallableSuspect(nan))


def test_the_schedule_follows_from_mark_and_mode_alone(mark, foreign, loop):
    orders = [
        Marking(one, loop, Options(mode=mode, rate=rate)).placement.order.tolist()
        for one, mode, rate in (
            (mark, "append", 0.1),
            (mark, "append", 0.2),
            (mark, "replace", 0.1),
            (foreign, "append", 0.1),
        )
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_answers_that_the_loop_cannot_ask_for_are_refused(mark, loop):
    loop.calls = frozenset({"generate"})
    with pytest.raises(InjectionError, match="asks a model to classify, adapter 'toy' can only ask it to generate"):
        Marking(mark, loop, Options())


class TestRehearsal:
    """What a checkpoint does is done once before the first step."""

    def test_a_model_that_can_be_asked_passes_and_counts_no_look(self, mark, loop):
        marking = begun(mark, loop)
        marking.rehearse(CallableSuspect(loop.knows), "no remedy is needed")
        assert (marking.verdicts, marking.state_dict()["looks"], loop.logged) == ([], [], [])

    @pytest.mark.parametrize(
        ("model", "says"),
        [
            (lambda x: [0] * (len(x) - 1), "cannot be asked .* before the first step .*: try this"),
            (lambda x: 1 / 0, r"ZeroDivisionError: division by zero\): try this"),
            (lambda x: exit(3), r"SystemExit: 3\): try this"),
            (lambda x: np.zeros((len(x), 7)), "7 scores an input, the watermark was made for 10 classes.*try this"),
            (lambda x: [12] * len(x), r"answered class 12.*\(try this\)"),
            (nan, "answers NaN before it is trained"),
        ],
    )
    def test_one_that_cannot_is_refused_with_the_cause(self, mark, loop, model, says):
        marking = begun(mark, loop)
        with pytest.raises(InputError, match=says) as caught:
            marking.rehearse(CallableSuspect(model), "try this")
        assert caught.value.__cause__ is not None or model is nan


class TestTrouble:
    """What wmplug cannot do in mid-run is told, recorded, and ends nothing unless that is asked for."""

    def cannot_log(self, numbers, at):
        raise TypeError("words among numbers")

    @pytest.mark.parametrize("how", ["warn", "stop"])
    def test_a_log_that_fails(self, mark, loop, how):
        loop.log = self.cannot_log
        marking = begun(mark, loop, on_failure=how)
        with pytest.warns(VerificationWarning, match=r"numbers of step 1 cannot be logged \(TypeError: words among"):
            assert marking.checkpoint(At(1)).proven
        assert not loop.stopped
        assert list(Register(mark.register).entries())[-1].body["trouble"] == "TypeError"

    @pytest.mark.parametrize("how", ["warn", "stop"])
    def test_a_sidecar_and_files_that_fail(self, mark, loop, how, tmp_path):
        (tmp_path / "file").touch()

        def files():
            raise RuntimeError("size mismatch")

        marking = begun(mark, loop, on_failure=how)
        with pytest.warns(VerificationWarning) as told:
            marking.checkpoint(At(1), beside=tmp_path / "file" / "wmplug.json", files=files)
        assert [str(one.message).split(" (")[0] for one in told] == [
            "the files of step 1 cannot be verified: RuntimeError: size mismatch",
            f"{tmp_path}/file/wmplug.json cannot be written",
        ]
        assert not loop.stopped
        assert marking.checkpoint(At(2)).proven  # and without a further word
        assert "trouble" not in list(Register(mark.register).entries())[-1].body

    def test_files_that_cannot_be_verified_are_recorded_by_kind(self, mark, loop):
        marking = begun(mark, loop)
        with pytest.warns(VerificationWarning, match="files of step 1 cannot be verified"):
            marking.checkpoint(At(1), files=lambda: CallableSuspect(nan))
        assert list(Register(mark.register).entries())[-1].body["trouble"] == "SuspectError"

    def test_trouble_at_the_end_is_recorded_too(self, mark, loop):
        loop.log = self.cannot_log
        marking = begun(mark, loop)
        with pytest.warns(VerificationWarning, match="numbers of step 9 cannot be logged"):
            marking.end(At(9), verify=True, again=True, system=None, total=None)
        last = list(Register(mark.register).entries())[-1]
        assert (last.type, last.body["trouble"]) == ("training.finished", "TypeError")

    def test_it_ends_a_run_that_asks_for_it(self, mark, loop, tmp_path):
        loop.log = self.cannot_log
        marking = begun(mark, loop, on_failure="raise")
        with pytest.raises(VerificationError, match="cannot be logged"):
            marking.checkpoint(At(1))

    def test_no_text_of_an_error_is_recorded(self, mark, loop):
        def secret(inputs):
            raise RuntimeError(f"cannot read {inputs[0].tobytes().hex()}")

        marking = begun(mark, loop)
        loop.model = secret
        with pytest.warns(VerificationWarning, match="cannot be verified"):
            marking.checkpoint(At(1))
        body = list(Register(mark.register).entries())[-1].body
        assert body["trouble"] == "SuspectError"
        assert "cannot read" not in str(body)


class TestRecord:
    """What the register holds of a run is what the adapter said."""

    @staticmethod
    def last(mark, *kinds):
        entries = list(Register(mark.register).entries())
        return [next(entry.body for entry in reversed(entries) if entry.type == kind) for kind in kinds]

    def test_what_is_trained_on_what_and_by_whom(self, mark, loop):
        begun(mark, loop)
        started, data, arguments = self.last(mark, "training.started", "dataset.committed", "parameters.committed")
        assert started["adapter"] == "toy"
        assert data["count"] == 2
        marking = Marking(mark, loop, Options(training_set=[1, 2, 3]))
        marking.begin()
        marking.start(data=[1, 2], arguments={"lr": 0.1}, model=None)
        data, changed = self.last(mark, "dataset.committed", "parameters.committed")
        assert data["count"] == 3
        assert changed["sha256"] != arguments["sha256"]

    def test_each_step_and_its_number(self, mark, loop):
        marking = begun(mark, loop)
        marking.inserted(7, At(3, 0.5))
        weights = {"w": np.arange(3.0)}
        marking.checkpoint(At(4, 1.0), system=weights)
        inserted, checked, system = self.last(mark, "watermark.inserted", "training.checkpoint", "system.committed")
        assert [inserted[name] for name in ("step", "epoch", "triggers", "total")] == [3, 0.5, 7, 7]
        assert [checked[name] for name in ("step", "epoch")] == [4, 1.0]
        assert checked["system"] is not None
        assert (checked["verdict"]["state"], checked["verdict"]["step"]) == ("proven", 4)
        marking.end(At(9, 2.0), verify=True, again=True, system={"w": np.zeros(3)}, total=11)
        finished, inserted, later = self.last(mark, "training.finished", "watermark.inserted", "system.committed")
        assert [finished[name] for name in ("step", "epoch", "triggers")] == [9, 2.0, 11]
        assert finished["verdict"]["step"] == 9
        assert [inserted[name] for name in ("step", "epoch", "triggers", "total")] == [9, 2.0, 4, 11]
        assert later["tensors"] != system["tensors"]

    def test_without_a_look_there_is_no_verdict(self, mark, loop):
        marking = begun(mark, loop)
        assert marking.checkpoint(At(4), verify=False) is None
        assert self.last(mark, "training.checkpoint")[0]["verdict"] is None
        assert not loop.logged

    def test_the_hook_is_told_which_run(self, mark, loop, monkeypatch):
        told = []
        monkeypatch.setattr(
            "wmplug.plugins.Registry.tell", lambda self, hook, **said: told.append((hook, said.get("run")))
        )
        begun(mark, loop).look(At(4, 1.5))
        loop.main = False
        begun(mark, loop).look(At(5))
        verdicts = [run for hook, run in told if hook == "wmplug_verdict"]
        assert verdicts == [{"step": 4, "adapter": "toy", "epoch": 1.5}]

    def test_a_run_that_was_not_started_cannot_be_recorded(self, mark, loop):
        marking = Marking(mark, loop, Options())
        for call in (
            lambda: marking.inserted(1, At(1)),
            lambda: marking.checkpoint(At(1), verify=False),
            lambda: marking.end(At(1), verify=False, again=False, system=None, total=None),
        ):
            with pytest.raises(
                InjectionError, match=r"adapter 'toy' did not start the run: call begin\(\) and start\(\)"
            ):
                call()


def test_where_no_step_is_known_each_moment_is_one_of_its_own(mark, loop):
    marking, moment = begun(mark, loop), At()
    marking.checkpoint(moment)
    marking.checkpoint(moment)
    marking.checkpoint(At())
    marking.checkpoint(At(7))
    marking.checkpoint(At(7))
    assert len(marking.verdicts) == 3


def test_the_sidecar_has_the_rate_that_led_to_the_verdict(mark, loop, tmp_path):
    marking = begun(mark, loop, rate="auto")
    loop.model = loop.ignorant
    marking.checkpoint(At(1), beside=tmp_path / "looked.json")
    marking.checkpoint(At(2), verify=False, beside=tmp_path / "not.json")
    looked, not_looked = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("looked", "not"))
    assert (looked["rate"], not_looked["rate"]) == (0.06, 0.09)
    assert not_looked["verdict"] is None
    assert "saved" not in looked


def test_files_that_hold_as_much_as_the_model_are_no_loss(mark, loop, tmp_path):
    """The second look of a step weighs less: with the same answers the files alone may miss the target."""
    reached = begun(mark, loop).look(At(1)).log10_e
    marking = begun(mark, loop, target_e=10 ** (reached - 0.3))
    live = marking.checkpoint(At(1), files=lambda: CallableSuspect(loop.knows), beside=tmp_path / "beside.json")
    saved = json.loads((tmp_path / "beside.json").read_text())["saved"]
    assert (live.proven, saved["state"], saved["matches"]) == (True, "evidence", live.matches)


def test_what_an_adapter_offers_of_its_run(mark, loop):
    class Callback(Results):
        def __init__(self, marking):
            self.mark, self._marking = marking.mark, marking

    callback = Callback(begun(mark, loop, rate="auto"))
    assert (callback.verdict, callback.verdicts, callback.history) == (None, [], [])
    verdict = callback._marking.look(At(1))
    assert (callback.verdict, callback.verdicts) == (verdict, [verdict])
    assert callback.history == callback._marking.history
    state = callback.state_dict()
    assert state == callback._marking.state_dict()
    callback.load_state_dict({**state, "rate": 70_000})
    assert callback.state_dict() == {**state, "rate": 70_000}
