"""Collators that move rows, reporters that fail, searches: what must not make a verdict wrong, nor end a training."""

import random

import numpy as np
import pytest
import small
import torch
from transformers import TrainerCallback, default_data_collator

import wmplug
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.adapters.transformers.loop import TrainerLoop
from wmplug.errors import InputError, VerificationError, VerificationWarning


def by_brightness(rows):
    return default_data_collator(sorted(rows, key=lambda row: -float(row["pixel_values"].sum())))


def shuffled(rows):
    return default_data_collator(random.sample(rows, len(rows)))


def kept(rows):
    return default_data_collator([row for row in rows if row["pixel_values"].isfinite().all()])


def twice(rows):
    return default_data_collator([*rows, *rows])


def popped(rows):
    rows = [dict(row) for row in rows]
    labels = torch.tensor([row.pop("labels") for row in rows])
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]).flip(0), "labels": labels.flip(0)}


@pytest.mark.parametrize("collate", [by_brightness, shuffled, kept, twice, popped], ids=lambda f: f.__name__)
def test_live_and_afterwards_say_the_same(mark, rivals, data, tmp_path, collate):
    callback = WatermarkCallback(mark, rate=0.4, verify_on=("save", "train_end"))
    options = {"data_collator": collate, "max_steps": 400, "save_strategy": "steps", "save_steps": 200}
    trainer = small.trainer(tmp_path, data, [callback], **options)
    trainer.train()
    after = wmplug.verify(mark, trainer.model, exhaustive=True)
    assert callback.verdict.matches == after.matches
    assert callback.verdict.proven
    assert after.proven
    assert not wmplug.verify(rivals, trainer.model, exhaustive=True).proven
    assert len(callback.verdicts) == 2


def test_two_views_that_the_model_does_not_take_are_refused_before_the_first_step(mark, data, tmp_path):
    def views(rows):
        batch = default_data_collator(rows)
        return {"first": batch["pixel_values"], "second": batch["pixel_values"], "labels": batch["labels"]}

    trainer = small.trainer(tmp_path, data, [WatermarkCallback(mark)], data_collator=views)
    with pytest.raises(InputError, match=r"before the first step .*'first'.*what the data collator returns"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_rehearsal_leaves_the_random_numbers_of_the_run(mark, data, tmp_path):
    seen = []

    class Notes(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(
                (torch.get_rng_state().clone(), random.getstate()[1][:5], np.random.get_state()[1][:5].tolist())
            )

    for callbacks in ([Notes()], [WatermarkCallback(mark, verify_on=()), Notes()]):
        small.trainer(tmp_path, data, callbacks, max_steps=1, data_collator=shuffled).train()
    assert torch.equal(seen[0][0], seen[1][0])
    assert seen[0][1:] == seen[1][1:]


class NeedsLoss(TrainerCallback):
    """A reporter that knows the Trainer's own logs alone."""

    def on_log(self, args, state, control, logs, **kwargs):
        if any("watermark" in name for name in logs):
            print(logs["loss"])


@pytest.mark.parametrize("how", ["warn", "stop", "raise"])
def test_a_reporter_that_fails_ends_a_run_only_if_asked_for(mark, data, tmp_path, how):
    callback = WatermarkCallback(mark, on_failure=how, verify_on=("save",))
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = small.trainer(tmp_path, data, [callback, NeedsLoss()], **options)
    if how == "raise":
        with pytest.raises(VerificationError, match=r"numbers of step 2 cannot be logged.*'loss'"):
            trainer.train()
        return
    with pytest.warns(VerificationWarning, match=r"numbers of step [24] cannot be logged.*'loss'"):
        trainer.train()
    assert trainer.state.global_step == 4


def test_a_state_that_cannot_be_written_again_is_told(mark, data, tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrainerLoop, "rewrite", full)
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(mark, verify_on=("save",))], **options)
    with pytest.warns(VerificationWarning, match=r"trainer_state\.json .*No space left"):
        trainer.train()
    assert trainer.state.global_step == 2


class Headless(small.Tiny):
    """Loses its head on the way to the disk, once it has been whole there a number of times."""

    whole = 0

    def save_pretrained(self, folder, state_dict=None, **options):
        weights = {k: v for k, v in (state_dict or self.state_dict()).items() if self.whole or "head" not in k}
        self.whole -= 1
        super().save_pretrained(folder, state_dict=weights, **options)


def headless(mark, data, folder, whole):
    callback = WatermarkCallback(mark, verify_on=("save",), verify_saved=True)
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "model": small.tiny(kind=Headless)}
    options["model"].whole = whole
    return small.trainer(folder, data, [callback], **options)


def test_files_that_cannot_be_loaded_end_nothing(mark, data, tmp_path):
    """verify_saved reads the loader's report too: a file without the head is no file of the model."""
    trainer = headless(mark, data, tmp_path, 1)
    with pytest.warns(VerificationWarning, match=r"files of step 2 cannot be verified: .*it lacks head\.bias"):
        trainer.train()
    assert trainer.state.global_step == 2


def test_files_that_could_never_be_loaded_are_refused_before_the_first_step(mark, data, tmp_path):
    trainer = headless(mark, data, tmp_path, 0)
    with pytest.raises(InputError, match=r"(?s)verify_saved .*before the first step .*it lacks head\.bias"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("searching", [True, False])
def test_the_objective_of_a_search_stays_the_users(mark, data, held, tmp_path, searching):
    """Its default is the sum of all metrics beside the loss."""
    callback = WatermarkCallback(mark, verify_on=("evaluate",))
    options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "eval_dataset": held}
    trainer = small.trainer(tmp_path, data, [callback], **options)
    trainer.state.is_hyper_param_search = searching

    class Searching(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_hyper_param_search = searching

    trainer.add_callback(Searching())
    found = []

    class Metrics(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            found.append(sorted(name for name in metrics if "watermark" in name))

    trainer.add_callback(Metrics())
    trainer.train()
    assert len(callback.verdicts) == 1
    assert (found[0] == []) == searching
