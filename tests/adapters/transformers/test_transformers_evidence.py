import dataclasses
import json

import pytest
import small

from wmplug.adapters.transformers import WatermarkCallback
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.register import Register, assets
from wmplug.register.checking import check


@pytest.fixture
def entries(mark):
    """What was recorded since the test began."""
    before = len(list(Register(mark.register).entries()))
    return lambda: list(Register(mark.register).entries())[before:]


def test_a_trainer_leaves_its_story(mark, data, held, tmp_path, entries):
    callback = WatermarkCallback(mark, rate=0.2)
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 2, "max_steps": -1}
    trainer = small.trainer(tmp_path, data, [callback], eval_dataset=held, **options)
    trainer.train()
    told = entries()
    kinds = [entry.type for entry in told]
    assert kinds[:4] == ["dataset.committed", "parameters.committed", "architecture.committed", "training.started"]
    assert kinds.count("watermark.inserted") == 2
    assert kinds[-1] == "training.finished"
    assert told[0].body["count"] == len(data)
    assert told[1].body["document"]["num_train_epochs"] == 2
    total = sum(entry.body["triggers"] for entry in told if entry.type == "watermark.inserted")
    assert total == told[-1].body["triggers"] > 0
    checkpoints = [entry.body for entry in told if entry.type == "training.checkpoint"]
    assert [body["system"] is not None for body in checkpoints] == [False, True] * 2  # evaluated, saved
    logged = [entry["watermark/log10_p"] for entry in trainer.state.log_history if "watermark/log10_p" in entry]
    assert checkpoints[0]["verdict"]["log10_p"] == logged[0]
    by_seq = {entry.seq: entry.body for entry in told}
    saved = sorted(tmp_path.glob("checkpoint-*/model.safetensors"), key=lambda file: int(file.parent.name[11:]))
    for file, body in zip(saved, [b for b in checkpoints if b["system"]], strict=True):
        assert assets.compare_system(assets.system(file), by_seq[body["system"]]) == "files"
    assert assets.compare_system(assets.system(saved[-1]), by_seq[told[-1].body["system"]]) == "tensors"
    assert check(mark.register).ok


def test_the_training_set_may_be_named(mark, data, tmp_path, entries):
    (tmp_path / "raw.bin").write_bytes(b"raw records")
    callback = WatermarkCallback(mark, rate=0.2, verify_on=(), training_set=tmp_path / "raw.bin")
    small.trainer(tmp_path / "out", data, [callback], num_train_epochs=1).train()
    assert entries()[0].body["bytes"] == len(b"raw records")


def test_a_run_that_must_be_recorded_and_cannot_does_not_begin(mark, data, tmp_path):
    lost = dataclasses.replace(mark, register=tmp_path / "nowhere")
    strict = WatermarkCallback(lost, rate=0.2, verify_on=(), require_evidence=True)
    with pytest.raises(RegisterError, match="require_evidence"):
        small.trainer(tmp_path, data, [strict], num_train_epochs=1).train()
    lax = WatermarkCallback(lost, rate=0.2, verify_on=())
    with pytest.warns(EvidenceWarning, match="NOT EVIDENCED"):
        small.trainer(tmp_path, data, [lax], num_train_epochs=1).train()


def test_tokens_among_the_arguments_stay_out(mark, data, tmp_path, entries):
    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    small.trainer(tmp_path, data, [callback], num_train_epochs=1, hub_token="hf_very_secret").train()
    assert "hf_very_secret" not in json.dumps([dict(entry.body) for entry in entries()])
    assert "hub_token" in json.dumps(entries()[1].body["removed"])
