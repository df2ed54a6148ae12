"""The contract of an adapter: triggers reach the model, and a run lives alike in every framework.

class TestMyFramework(AdapterContract):
    adapter = "my-framework"

    def train(self, images, labels, watermark, folder):
        net = Net(callbacks=[watermark(rate=0.2)] if watermark else [], epochs=40).fit(images, labels)
        net.save(folder / "net")
        return net.predict

    def train_beside(self, images, labels, watermark):
        Net(callbacks=[watermark()], loader="one that ignores callbacks").fit(images, labels)

    def train_briefly(self, images, labels, watermark, looks):
        return Net(callbacks=[watermark()], epochs=looks).fit(images, labels).history
"""

import dataclasses
import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import verify
from wmplug.errors import InjectionError, InputError, VerificationError, VerificationWarning
from wmplug.making import create
from wmplug.plugins import adapter
from wmplug.statistics.arrays import IntArray
from wmplug.suspects.functions import CallableSuspect
from wmplug.testing.schemes import fixed_owner, knowing, refuse_secrets
from wmplug.training.loop import At
from wmplug.training.marking import STATES, Marking
from wmplug.training.options import Options
from wmplug.training.placement import PPM, Placement
from wmplug.watermark.watermark import Watermark

Trained: TypeAlias = tuple[Any, Path]

LOGGED = tuple(f"watermark/{name}" for name in ("log10_p", "log10_e", "matches", "rate", "state"))
BAD: tuple[dict[str, Any], ...] = (
    {"rate": 0.9},
    {"mode": "prepend"},
    {"verify_on": ("never",)},
    {"on_failure": "cry"},
    {"target_e": 1},
    {"batch_size": 0},
)


@dataclass
class Ran:
    """A brief training: the adapter, its framework's log, and the outcome."""

    adapter: Any = None
    logged: Sequence[Mapping[str, Any]] = ()
    warned: tuple[str, ...] = ()
    error: str = ""
    tables: tuple[Placement, ...] = ()
    total: int | None = None
    records: int = 0

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all looks."""
        result: list[Verdict] = self.adapter.verdicts
        return result

    @property
    def steps(self) -> int:
        """The number of different steps with a look."""
        return len({verdict.step for verdict in self.verdicts})


class AdapterContract:
    """The contract of an adapter; a subclass sets `adapter` and overrides `train`, `train_beside` and `train_briefly`.

    The tests of a run replace the model's answers, so that a watermark is proven and lost when they need it.

    Attributes:
        adapter: its registered name.
        triggers: number of the watermark's triggers; more make training longer and the proof stronger.
    """

    adapter: ClassVar[str]
    triggers: ClassVar[int] = 30
    _trained: ClassVar[dict[str, Trained]]

    def train(self, images: npt.NDArray[np.float32], labels: IntArray, watermark: Any, folder: Path) -> Any:
        """Train a small classifier until it is proven, and return a suspect for `verify`.

        Args:
            images: (600, 8, 8) float32 in [0, 1], ten classes.
            labels: (600,) int64.
            watermark: `watermark(**options)` makes the adapter for the mark; None to train without one.
            folder: write everything here that the framework can write with the adapter in place: checkpoints, logs,
                pickles.
        """
        raise NotImplementedError(f"{type(self).__name__} must override train()")

    def train_beside(self, images: npt.NDArray[np.float32], labels: IntArray, watermark: Any) -> None:
        """Train with the adapter in place, but without bringing a trigger to the model; it must raise."""
        raise NotImplementedError(f"{type(self).__name__} must override train_beside()")

    def train_briefly(
        self, images: npt.NDArray[np.float32], labels: IntArray, watermark: Any, looks: int
    ) -> Sequence[Mapping[str, Any]]:
        """Train briefly, with that many verifications, each after some more steps.

        Args:
            images: as for `train`.
            labels: as for `train`.
            watermark: as for `train`; leave the options that all adapters share to it.
            looks: number of looks during training; one more at its end may follow.

        Returns:
            The framework's own log of each look, one mapping a look.
        """
        raise NotImplementedError(f"{type(self).__name__} must override train_briefly()")

    def preprocess(self, image: Any, answer: int) -> Any:
        """The dataset's example for an image of shape (8, 8)."""
        return image, answer

    def mode(self, model: Any) -> Any:
        """The state that verification must preserve: for a torch module, the modes of its modules."""
        module = getattr(model, "module_", model)
        return [part.training for part in module.modules()] if hasattr(module, "modules") else None

    @pytest.fixture
    def mark(self) -> Watermark:
        """The owner's watermark."""
        return self._mark("Ada")

    def _mark(self, owner: str) -> Watermark:
        images, labels = pictures()
        return create(
            fixed_owner(owner),
            scheme="random-label",
            carriers=images,
            labels=labels,
            classes=10,
            triggers=self.triggers,
            preprocess=self.preprocess,
        )

    def _by_name(self, mark: Watermark) -> Callable[..., Any]:
        return lambda **options: adapter(self.adapter)(mark, **options)

    def _run(
        self,
        mark: Any,
        looks: int,
        knows: Sequence[bool] = (True,),
        *,
        before: Callable[[Any], None] = lambda made: None,
        **options: Any,
    ) -> Ran:
        """A brief training; `knows` gives the looks at which the model knows the answers, the last value repeats."""
        ran, left, tables = Ran(), list(knows), []
        look, draw, inserted, end = Monitor.look, Placement.draw, Marking.inserted, Marking.end

        def watermark(**own: Any) -> Any:
            ran.adapter = adapter(self.adapter)(mark, **{**own, **options})
            before(ran.adapter)
            return ran.adapter

        def scripted(monitor: Monitor, suspect: Any, **more: Any) -> Verdict:
            known = knowing(monitor.mark) if (left.pop(0) if len(left) > 1 else left[0]) else _ignorant
            return look(monitor, CallableSuspect(known), **more)

        def drawn(*given: Any) -> Placement:
            tables.append(draw(*given))
            return tables[-1]

        def recorded(marking: Marking, total: int | None, at: At) -> None:
            ran.records += 1
            inserted(marking, total, at)

        def ended(marking: Marking, at: At, **more: Any) -> None:
            ran.total = more["total"]
            end(marking, at, **more)

        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patch.setattr(Monitor, "look", scripted)
            patch.setattr(Placement, "draw", drawn)
            patch.setattr(Marking, "inserted", recorded)
            patch.setattr(Marking, "end", ended)
            try:
                ran.logged = self.train_briefly(*pictures(), watermark, looks)
            except VerificationError as error:
                ran.error = str(error)
        ran.warned = tuple(str(w.message) for w in caught if issubclass(w.category, VerificationWarning))
        ran.tables = tuple(tables)
        return ran

    @pytest.fixture
    def marked(self, mark: Watermark, tmp_path_factory: pytest.TempPathFactory) -> Trained:
        """A model trained with the adapter, and its folder; once for all tests of the class."""
        return self._once("marked", self._by_name(mark), tmp_path_factory)

    @pytest.fixture
    def twin(self, tmp_path_factory: pytest.TempPathFactory) -> Trained:
        """The same training without the adapter."""
        return self._once("twin", None, tmp_path_factory)

    def _once(self, which: str, watermark: Any, folders: pytest.TempPathFactory) -> Trained:
        # Not a class-scoped fixture: pytest wants those to be class methods, and `train` is the author's own.
        trained: dict[str, Trained] = type(self).__dict__.get("_trained", {})
        if which not in trained:
            folder = folders.mktemp(which)
            trained[which] = self.train(*pictures(), watermark, folder), folder
            type(self)._trained = trained
        return trained[which]

    def test_the_marked_model_is_proven(self, mark: Watermark, marked: Trained) -> None:
        """The owner proves the mark."""
        verdict = verify(mark, marked[0])
        assert verdict.proven, f"the mark did not take, train longer or raise rate=: {verdict}"

    def test_others_are_not(self, mark: Watermark, marked: Trained, twin: Trained) -> None:
        """The unmarked twin and a rival's key stay "inconclusive"."""
        for of, against, model in (("the unmarked twin", mark, twin[0]), ("a rival", self._mark("Eve"), marked[0])):
            verdict = verify(against, model, exhaustive=True)
            assert verdict.state == "inconclusive", f"{of} is {verdict}"

    def test_verifying_leaves_the_model_as_it_was(self, mark: Watermark, marked: Trained, twin: Trained) -> None:
        """Modes are restored, by the adapter during training and by `verify` after it."""
        assert self.mode(marked[0]) == self.mode(twin[0]), "training with the adapter left the model in another mode"
        module: Any = getattr(marked[0], "module_", marked[0])
        for training in (True, False) if hasattr(module, "train") else ():
            module.train(training)
            before = self.mode(marked[0])
            verify(mark, marked[0])
            assert self.mode(marked[0]) == before, f"verify left a model with training={training} in another mode"

    def test_silence_is_an_error(self, mark: Watermark) -> None:
        """If no trigger reaches the model, training stops with InjectionError."""
        with pytest.raises(InjectionError):
            self.train_beside(*pictures(), self._by_name(mark))

    def test_nothing_written_holds_the_key(self, mark: Watermark, marked: Trained) -> None:
        """No file from training holds the key, in bytes, hexadecimal or base64."""
        files = [file for file in marked[1].rglob("*") if file.is_file()]
        assert files, "train() wrote nothing to its folder: write checkpoints, logs and pickles there"
        for file in files:
            refuse_secrets(mark, file.read_bytes(), str(file))

    def test_options_have_the_names_and_the_order_of_all_adapters(self) -> None:
        """The shared options come first, with their defaults; an adapter's own follow."""
        parameters = inspect.signature(adapter(self.adapter)).parameters
        shared = [field.name for field in dataclasses.fields(Options)]
        optional = [name for name, parameter in parameters.items() if parameter.default is not inspect.Parameter.empty]
        assert optional[: len(shared)] == shared, f"the options are {optional}, and {shared} come first everywhere"
        for field in dataclasses.fields(Options):
            default = parameters[field.name].default
            assert field.name == "verify_on" or default == field.default, f"{field.name}={default!r} by default"

    @pytest.mark.parametrize("bad", BAD, ids=str)
    def test_an_option_out_of_range_is_refused(self, mark: Watermark, bad: dict[str, Any]) -> None:
        """Before training, with the option's name."""
        with pytest.raises(InputError, match=next(iter(bad))):
            self._run(mark, 1, **bad)

    def test_what_is_no_watermark_is_refused(self) -> None:
        """The message names the remedy; a path that leads nowhere is one of its own."""
        with pytest.raises(InputError, match=r"wmplug\.load"):
            self._run(7, 1)

    def test_each_look_is_logged_in_the_same_numbers(self, mark: Watermark) -> None:
        """In the framework's own log and in `history`, under the same names; numbers only, and finite."""
        ran = self._run(mark, 3, rate="auto")
        assert len(ran.logged) >= 3, f"{len(ran.logged)} looks were logged, 3 were taken"
        assert len(ran.adapter.history) == len(ran.verdicts), (
            "history lacks an entry for a verdict, or has one too many"
        )
        assert ran.adapter.verdict is ran.verdicts[-1], "verdict differs from the last of verdicts"
        for entry, kept, verdict in zip(ran.logged, ran.adapter.history, ran.verdicts, strict=False):
            numbers: dict[str, Any] = {name: entry.get(name) for name in LOGGED}
            for name, value in numbers.items():
                assert type(value) in (int, float), f"{name} is {value!r}: log a number"
                assert math.isfinite(value), f"{name} is {value}"
            assert numbers == {name: kept[name] for name in LOGGED}, "the log and `history` differ"
            assert {"step", "epoch"} <= kept.keys(), "an entry of `history` lacks step or epoch"
            assert numbers["watermark/log10_p"] == verdict.log10_p, "log10_p is not the verdict's"
            assert numbers["watermark/state"] == STATES.index(verdict.state), "the state is not the verdict's"
        rates = [entry["watermark/rate"] for entry in ran.adapter.history]
        assert rates[0] == mark.scheme.rate > rates[1], "the rate that is logged is not the one up to the look"

    @pytest.mark.parametrize("how", ["warn", "raise", "stop"])
    def test_a_mark_that_is_lost_acts_at_once(self, mark: Watermark, how: str) -> None:
        """In mid-training, by on_failure: a warning, an exception, or a warning and the end of training."""
        ran = self._run(mark, 4, [True, False], on_failure=how)
        if how == "raise":
            assert "proven earlier" in ran.error, "on_failure='raise' did not raise when the mark was lost"
            assert len(ran.verdicts) == 2, f"it raised after {len(ran.verdicts)} looks, the mark was lost at the second"
            return
        assert any("proven earlier" in text for text in ran.warned), f"on_failure={how!r} did not warn of the loss"
        assert any("does not prove" in text for text in ran.warned), f"on_failure={how!r} did not warn at the end"
        wanted = 2 if how == "stop" else 4
        assert ran.steps == wanted, f"on_failure={how!r}: it was verified at {ran.steps} steps, {wanted} were expected"

    def test_a_model_that_is_not_proven_at_the_end_acts_then(self, mark: Watermark) -> None:
        """A mark that was never proven does not count as lost in mid-training, and counts as a failure at the end."""
        ran = self._run(mark, 2, [False], on_failure="raise", mode="replace")
        assert "does not prove the watermark" in ran.error, "on_failure='raise' did not raise at the end"
        assert ran.steps == 2, f"it was verified at {ran.steps} steps, 2 were expected"
        assert not ran.adapter.verdict.proven, "verdict differs from the last of verdicts"
        self._refuse_other_tables(mark, ran, "replace")

    def test_a_proven_model_ends_in_silence(self, mark: Watermark) -> None:
        """A proven model gets no warning; the schedule depends on mark and mode alone, also in a resumed run."""
        ran = self._run(mark, 1)
        assert (ran.error, ran.warned) == ("", ()), f"a proven model got a complaint: {ran.error}{ran.warned}"
        self._refuse_other_tables(mark, ran, "append")

    def test_it_verifies_only_when_it_is_asked_to(self, mark: Watermark) -> None:
        """Without an event to verify on, nothing looks by itself; triggers are recorded all the same."""
        ran = self._run(mark, 2, verify_on=())
        by_itself = not hasattr(ran.adapter, "checkpoint")  # which the user's own loop calls
        assert not (by_itself and ran.verdicts), f"verify_on=() and the adapter verified {len(ran.verdicts)} times"
        assert ran.records, "Marking.inserted was never called: the register would not say how many triggers came"

    def test_the_rate_is_obeyed(self, mark: Watermark) -> None:
        """Four times as many triggers where they are four times as many of the batch, by the adapter's own count."""
        few, many = (self._run(mark, 1, rate=rate).total for rate in (1 / 11, 4 / 14))
        if few is None or many is None:
            return  # only a compiled graph knows
        assert few > 0, "Marking.end was told of no trigger"
        assert 2.5 < many / few < 6, f"{few} triggers came at one to ten samples, {many} at four to ten"

    def _refuse_other_tables(self, mark: Watermark, ran: Ran, mode: Any) -> None:
        wanted = Placement.of(mark, mode)
        assert ran.tables, "no Placement was drawn: take the triggers' places from marking.placement"
        for table in ran.tables:
            same = (table.mode, table.order.tolist()) == (mode, wanted.order.tolist())
            assert same, "the schedule differs from Placement.of(mark, mode), so a resumed run would have another"

    def test_a_resumed_run_goes_on_with_looks_and_rate(self, mark: Watermark) -> None:
        """`state_dict` is JSON without secrets; `load_state_dict` ignores the state of another watermark."""
        first = self._run(mark, 2, rate="auto")
        text = json.dumps(first.adapter.state_dict(), allow_nan=False)
        refuse_secrets(mark, text.encode(), "state_dict")
        state = json.loads(text)
        assert len(state["looks"]) == len(first.verdicts), "state_dict lacks looks, or has some too many"

        def resume(adapter: Any) -> None:
            adapter.load_state_dict({**state, "root": "0" * 64})
            assert adapter.state_dict()["looks"] == [], "the looks of another watermark were taken over"
            adapter.load_state_dict(state)

        again = self._run(mark, 1, before=resume, rate="auto")
        looks, wanted = again.verdicts[0].looks, len(state["looks"]) + 1
        assert looks == wanted, f"the first look after a resume counts as number {looks}, {wanted} was expected"
        rate = again.adapter.history[0]["watermark/rate"]
        assert rate == state["rate"] / PPM, f"the resumed rate is {rate}, {state['rate'] / PPM} was saved"
        anew = self._run(mark, 1, before=resume, rate=0.25)
        assert anew.adapter.history[0]["watermark/rate"] == 0.25, "a resume changed a rate that is fixed"


def _ignorant(inputs: Sequence[Any]) -> npt.NDArray[np.int64]:
    return np.zeros(len(inputs), np.int64)


def pictures() -> tuple[npt.NDArray[np.float32], IntArray]:
    """(600, 8, 8) float32 pictures in [0, 1] of ten classes, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    faces = rng.random((10, 8, 8))
    noisy = 0.7 * faces[labels] + 0.3 * rng.random((600, 8, 8))
    return noisy.astype(np.float32), labels.astype(np.int64)
