"""What a run reports, decides and leaves behind."""

import json
import warnings
from pathlib import Path

import pytest
import small
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EarlyStoppingCallback, TrainerCallback

import wmplug
from wmplug import InputError, VerificationError
from wmplug.adapters.torch.points import strip
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.errors import VerificationWarning
from wmplug.training.placement import read_rate

LEARNT = {"max_steps": 160, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def marked(tmp_path_factory, mark, data, held):
    """A perceptron that learnt digits and mark, verified and saved every 40 steps."""
    folder = tmp_path_factory.mktemp("marked")
    trainer = small.trainer(
        folder,
        data,
        [WatermarkCallback(mark, rate=0.2, verify_saved=True)],
        model=small.tiny(width=256),
        eval_dataset=held,
        compute_metrics=small.accuracy,
        report_to="tensorboard",
        eval_strategy="steps",
        eval_steps=40,
        save_strategy="steps",
        save_steps=40,
        **LEARNT,
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def twin(tmp_path_factory, data, held):
    trainer = small.trainer(
        tmp_path_factory.mktemp("twin"),
        data,
        [],
        model=small.tiny(width=256),
        eval_dataset=held,
        compute_metrics=small.accuracy,
        **LEARNT,
    )
    trainer.train()
    return trainer


def test_own_model_is_proven_twin_and_rival_are_not(marked, twin, mark, rivals):
    assert wmplug.verify(mark, marked.model).proven
    assert wmplug.verify(mark, marked.model, exhaustive=True).log10_p < -20
    assert wmplug.verify(mark, twin.model, exhaustive=True).state == "inconclusive"
    assert wmplug.verify(rivals, marked.model, exhaustive=True).state == "inconclusive"
    assert marked.evaluate()["eval_accuracy"] > twin.evaluate()["eval_accuracy"] - 0.05


def test_the_history_shows_it_rise(marked):
    history = marked.state.log_history
    steps = [entry["step"] for entry in history if "watermark/log10_p" in entry]
    # Evaluation, save and end fall on the same steps: one look each.
    assert steps == [40, 80, 120, 160]
    p = small.logged(marked.state, "watermark/log10_p")
    assert p[-1] < -10 < p[0]
    assert small.logged(marked.state, "watermark/state")[-1] == 2
    assert small.logged(marked.state, "watermark/rate") == [0.2] * 4
    assert max(small.logged(marked.state, "watermark/log10_e")) > 6
    assert small.logged(marked.state, "watermark/matches")[-1] > 30


def test_tensorboard_has_it_too(marked):
    # The Trainer opens another file when it evaluates after training.
    files = sorted(Path(marked.args.output_dir).rglob("events.out.tfevents*"))
    events = EventAccumulator(str(files[0])).Reload()
    scalars = events.Tags()["scalars"]
    for name in ("log10_p", "log10_e", "matches", "rate", "state"):
        assert f"train/watermark/{name}" in scalars
    assert [event.step for event in events.Scalars("train/watermark/log10_p")] == [40, 80, 120, 160]


def test_sidecars_hold_public_part_and_verdicts(marked, mark):
    sidecar = json.loads((Path(marked.args.output_dir) / "checkpoint-160" / "wmplug.json").read_text())
    assert sidecar["watermark"] == mark.public
    assert sidecar["verdict"]["state"] == sidecar["saved"]["state"] == "proven"
    assert sidecar["verdict"]["matches"] == sidecar["saved"]["matches"]
    assert sidecar["saved"]["suspect"].endswith("checkpoint-160")
    assert "watermark/saved/log10_p" in {name for entry in marked.state.log_history for name in entry}


class Emptied(small.Tiny):
    """Loses its head's weights on the way to the disk."""

    def save_pretrained(self, save_directory, state_dict=None, **kwargs):
        state_dict = {name: torch.zeros_like(value) for name, value in self.state_dict().items()}
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)


def test_files_that_lost_the_mark_are_told(tmp_path, data, mark):
    callback = WatermarkCallback(mark, rate=0.2, verify_on=("save",), verify_saved=True)
    model = small.tiny(kind=Emptied, width=256)
    options = {**LEARNT, "save_strategy": "steps", "save_steps": 160}
    with pytest.warns(VerificationWarning, match=r"the files in .*checkpoint-160 do not"):
        small.trainer(tmp_path, data, [callback], model=model, **options).train()


def test_nothing_of_ours_stays_in_the_model(marked):
    assert strip(marked.model) == 0
    assert "forward" not in vars(marked.model)
    assert set(marked.model.state_dict()) == set(small.tiny(width=256).state_dict())


@pytest.mark.parametrize(
    ("metric", "greater"), [("eval_watermark_log10_p", False), ("eval_watermark_matches", None)], ids=str
)
def test_metric_for_best_model(tmp_path, mark, data, held, metric, greater):
    trainer = small.trainer(
        tmp_path,
        data,
        [WatermarkCallback(mark, rate=0.2), EarlyStoppingCallback(early_stopping_patience=9)],
        eval_dataset=held,
        eval_strategy="steps",
        eval_steps=8,
        save_strategy="steps",
        save_steps=8,
        max_steps=24,
        learning_rate=1e-2,
        metric_for_best_model=metric,
        greater_is_better=greater,
        load_best_model_at_end=True,
    )
    trainer.train()
    name = metric.replace("eval_watermark_", "watermark/")
    seen = small.logged(trainer.state, name)[:3]
    assert trainer.state.best_metric == pytest.approx(min(seen) if greater is False else max(seen))
    # The best model was loaded after the last look: it is looked at again.
    assert len(small.logged(trainer.state, name)) == 4


def quick(folder, data, mark, **options):
    extra = {name: options.pop(name) for name in ("max_steps", "model", "data_collator") if name in options}
    return small.trainer(folder, data, [WatermarkCallback(mark, **options)], **extra)


def test_failure_warns_or_raises(tmp_path, data, mark):
    with warnings.catch_warnings():
        warnings.simplefilter("error", VerificationWarning)
        with pytest.raises(VerificationWarning, match="does not prove the watermark"):
            quick(tmp_path, data, mark).train()
    with pytest.raises(VerificationError, match="does not prove the watermark"):
        quick(tmp_path, data, mark, on_failure="raise").train()


class Forgetting(TrainerCallback):
    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == 120:
            torch.nn.init.zeros_(model.head.weight)


def test_stop_ends_a_run_that_lost_the_mark(tmp_path, data, mark, held):
    trainer = small.trainer(
        tmp_path,
        data,
        [WatermarkCallback(mark, rate=0.2, on_failure="stop"), Forgetting()],
        model=small.tiny(width=256),
        eval_dataset=held,
        eval_strategy="steps",
        eval_steps=121,
        **{**LEARNT, "max_steps": 400, "save_strategy": "steps", "save_steps": 110},
    )
    with pytest.warns(VerificationWarning, match="proven earlier and is not proven at step 121"):
        trainer.train()
    assert trainer.state.global_step == 121


def test_auto_rate_follows_the_verdicts(tmp_path, data, mark, held):
    trainer = small.trainer(
        tmp_path,
        data,
        [WatermarkCallback(mark, rate="auto")],
        model=small.tiny(width=256),
        eval_dataset=held,
        eval_strategy="steps",
        eval_steps=20,
        **LEARNT,
    )
    trainer.train()
    rates = [round(rate * 1e6) for rate in small.logged(trainer.state, "watermark/rate")]
    rule = read_rate("auto", mark.scheme.rate)[1]
    found = small.logged(trainer.state, "watermark/log10_e")
    # What is logged is the rate up to the look.
    assert rates[1:] == [rule.next(rate, e, 6.0) for rate, e in zip(rates, found, strict=True)][:-1]
    assert rates[:2] == [60_000, 90_000]
    assert max(rates) <= 240_000
    assert wmplug.verify(mark, trainer.model).proven


class Failing(small.Recorder):
    def __call__(self, features):
        if len(self.batches()) == 3:
            raise OSError("disk full")
        return super().__call__(features)


def test_after_an_exception_the_next_run_is_clean(tmp_path, data, mark):
    trainer = quick(tmp_path, data, mark, data_collator=Failing(tmp_path / "b.jsonl"), rate=0.2)
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    assert trainer.model.training
    trainer.data_collator = small.Recorder(tmp_path / "again.jsonl")
    trainer.train()
    assert strip(trainer.model) == 0
    known = small.prints(mark)
    first = trainer.data_collator.batches()[0]
    assert sum(p in known for p in first["prints"]) == 8


def test_dropout_is_off_while_verifying_and_on_afterwards(tmp_path, data, mark):
    modes = []

    class Watching(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **kwargs):
            modes.append((model.training, model.dropout.training))

    trainer = small.trainer(
        tmp_path, data, [WatermarkCallback(mark), Watching()], save_strategy="steps", save_steps=1, save_only_model=True
    )
    seen = []
    trainer.model.dropout.register_forward_pre_hook(lambda module, args: seen.append((module.training, len(args[0]))))
    trainer.train()
    assert modes[1:] == [(True, True)] * 5
    assert {size for training, size in seen if not training} >= {40}
    assert all(size != 40 for training, size in seen if training)


class Nan(small.Tiny):
    def forward(self, pixel_values, labels=None):
        output = super().forward(pixel_values, labels)
        output["logits"] = output.logits * float("nan")
        return output


def test_nan_outputs_are_told(tmp_path, data, mark):
    with pytest.raises(InputError, match="NaN"):
        quick(tmp_path, data, mark, model=small.tiny(kind=Nan)).train()


class Diverging(TrainerCallback):
    def on_step_end(self, args, state, control, model, **kwargs):
        torch.nn.init.constant_(model.head.bias, float("nan"))


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
def test_a_run_that_diverges(tmp_path, data, mark, on_failure):
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(mark, on_failure=on_failure), Diverging()], max_steps=2)
    expected = pytest.warns(VerificationWarning, match=r"cannot be verified.*NaN")
    if on_failure == "raise":
        expected = pytest.raises(VerificationError, match=r"cannot be verified.*NaN")
    with expected:
        trainer.train()


def test_the_callback_by_name():
    assert wmplug.adapter("transformers") is WatermarkCallback
