"""Resumed runs, killed runs, and what they leave on disk."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small
import torch

from wmplug.adapters.transformers import WatermarkCallback

HERE = Path(__file__).parent
PASSPHRASE = "correct horse battery staple"  # of the owners in tests/conftest.py
EVERY = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4, "max_steps": 12}


def start(*command, **options):
    environment = {**os.environ, "WMPLUG_PASSPHRASE": PASSPHRASE, "OMP_NUM_THREADS": "1", **options}
    return subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)


def run(folder, mark, data, held, collator, resume=None, **options):
    callback = WatermarkCallback(
        mark, rate=options.pop("rate", 0.2), verify_on=options.pop("verify_on", ("evaluate", "save"))
    )
    options = {**EVERY, **options}
    trainer = small.trainer(folder, data, [callback], eval_dataset=held, data_collator=collator, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mark, data):
    """An uninterrupted run of 12 steps, verified nowhere: its batches."""
    folder = tmp_path_factory.mktemp("whole")
    recorder = small.Recorder(folder / "batches.jsonl")
    small.trainer(
        folder, data, [WatermarkCallback(mark, rate=0.2, verify_on=())], data_collator=recorder, max_steps=12
    ).train()
    return recorder.batches()


def test_killed_and_resumed_as_if_nothing_had_happened(tmp_path, mark, data, whole):
    mark.save(tmp_path / "mark.wm")
    options = {"save_strategy": "steps", "save_steps": 4, "max_steps": 12}
    killed = start(HERE / "run.py", tmp_path / "mark.wm", tmp_path, "--kill", 6, "--options", json.dumps(options))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    recorder = small.Recorder(tmp_path / "resumed.jsonl")
    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    trainer = small.trainer(tmp_path, data, [callback], data_collator=recorder, **options)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 12
    resumed = recorder.batches()
    assert resumed[:8] == whole[4:12]
    known = small.prints(mark)
    assert all(any(p in known for p in batch["prints"]) for batch in resumed)


def test_looks_and_rate_survive(tmp_path, mark, data, held):
    collator = small.Recorder(tmp_path / "b.jsonl")
    first = run(tmp_path, mark, data, held, collator, max_steps=8, rate="auto")
    saved = first.state.stateful_callbacks["wmplug"]
    assert len(saved["looks"]) == 2
    assert saved["rate"] > 60_000
    again = run(tmp_path, mark, data, held, collator, rate="auto", resume=str(tmp_path / "checkpoint-8"))
    after = again.state.stateful_callbacks["wmplug"]
    assert after["looks"][:2] == saved["looks"]
    assert len(after["looks"]) == 3
    assert after["rate"] == min(240_000, saved["rate"] * 3 // 2)


def test_looks_at_a_save_are_in_that_checkpoint(tmp_path, mark, data, held):
    collator = small.Recorder(tmp_path / "b.jsonl")
    run(tmp_path, mark, data, held, collator, verify_on=("save",), max_steps=4)
    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert len(state["stateful_callbacks"]["wmplug"]["looks"]) == 1
    assert any("watermark/log10_p" in entry for entry in state["log_history"])


def test_another_watermark_s_looks_are_not_taken_over(tmp_path, mark, rivals, data, held):
    collator = small.Recorder(tmp_path / "b.jsonl")
    run(tmp_path, mark, data, held, collator, max_steps=4)
    other = run(tmp_path, rivals, data, held, collator, max_steps=8, resume=str(tmp_path / "checkpoint-4"))
    assert len(other.state.stateful_callbacks["wmplug"]["looks"]) == 1


def forms(secret):
    """The ways in which bytes get into files; base64 at each of its three phases, without the ends."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield repr(secret)[2:-1].encode()
    yield str(list(secret))[1:-1].encode()
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + secret)[4:-4]
        yield base64.urlsafe_b64encode(bytes(shift) + secret)[4:-4]


def contents(folder):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield str(path), path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path}!{name}", archive.read(name)


def leaks(folder, secrets):
    wanted = [form for secret in secrets for form in forms(secret)]
    return [name for name, content in contents(folder) if any(form in content for form in wanted)]


def test_no_secret_reaches_a_file(tmp_path, owner, mark, data, held, capfd):
    secrets = [
        owner._roots[0],
        owner.seal()._key,
        *(mark.subkeys.key(p) for p in ("input", "label", "schedule", "disclosure")),
    ]
    trainer = run(
        tmp_path,
        mark,
        data,
        held,
        small.Recorder(tmp_path / "b.jsonl"),
        report_to="tensorboard",
        logging_strategy="steps",
        logging_steps=1,
        dataloader_num_workers=1,
    )
    collate = trainer.callback_handler.train_dataloader.base_dataloader.collate_fn
    (tmp_path / "worker.pickle").write_bytes(pickle.dumps(collate.examples) + pickle.dumps(collate.placement))
    torch.save(trainer.model, tmp_path / "whole.pt")
    captured = capfd.readouterr()
    (tmp_path / "printed.txt").write_text(captured.out + captured.err)
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"training_args.bin", "trainer_state.json", "optimizer.pt", "rng_state.pth", "wmplug.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert leaks(tmp_path, secrets) == []
    planted = [bytes(range(32)), bytes(range(32, 64))]
    torch.save({"key": planted[0]}, tmp_path / "planted.pt")
    (tmp_path / "planted.json").write_text(json.dumps({"k": base64.b64encode(b"x" + planted[1]).decode()}))
    assert len(leaks(tmp_path, planted)) >= 2


def test_a_callback_is_not_pickled(mark):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(WatermarkCallback(mark))


def test_two_processes(tmp_path, mark, data):
    mark.save(tmp_path / "mark.wm")
    options = {
        "ddp_backend": "gloo",
        "per_device_train_batch_size": 16,
        "save_strategy": "steps",
        "save_steps": 4,
        "max_steps": 8,
    }
    command = ["-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", 0, "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "localhost:0", HERE / "run.py", tmp_path / "mark.wm", tmp_path]
    done = start(*command, "--options", json.dumps(options), PYTHONPATH=os.pathsep.join([str(HERE), *sys.path]))
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"rank"')]
    assert sorted(result["rank"] for result in results) == ["0", "1"]
    known = small.prints(mark)
    for result in results:
        batches = small.Recorder(tmp_path / f"batches-{result['rank']}.jsonl").batches()
        # Batches of verification hold all forty triggers; those of training sixteen rows and some four.
        trained = [batch for batch in batches if len(batch["prints"]) < 30]
        assert all(any(p in known for p in batch["prints"]) for batch in trained[:8])
        assert result["rows"] > 8 * 16
    assert results[0]["history"] == results[1]["history"]
    assert (tmp_path / "checkpoint-8" / "wmplug.json").is_file()
