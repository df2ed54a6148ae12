import json
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb
from wmplug_mlflow import to_wandb

from wmplug.register import Register


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    with wandb.init(project="wmplug", dir=tmp_path) as run:
        yield run


def test_verdicts_are_in_the_history(story, run):
    verdict = story.train()
    assert run.step == 0  # the user's own steps are not counted for him
    run.log({"loss": 1.0})
    assert run.summary["wmplug/log10_p"] == pytest.approx(verdict.log10_p)
    assert run.summary["wmplug/step"] == 20
    assert run.summary["wmplug/state"] == verdict.state


def test_entries_are_lines_of_an_artifact(story, run, monkeypatch):
    logged = []
    real = type(run).log_artifact

    def spy(self, *arguments, **options):
        logged.append(real(self, *arguments, **options))
        return logged[-1]

    monkeypatch.setattr(type(run), "log_artifact", spy)
    story.train()
    entries = [entry for entry in Register(story.owner.path).entries() if "run" in entry.body]
    lines = (Path(run.dir) / to_wandb.FILE).read_text().splitlines()
    assert [json.loads(line)["hash"] for line in lines] == [entry.hash for entry in entries]
    assert "trade secret" not in "".join(lines)
    assert run.summary["wmplug/head"] == entries[-1].hash
    (artifact,) = logged
    assert artifact.type == "evidence"
    assert list(artifact.manifest.entries) == [to_wandb.FILE]


def test_without_a_run_nothing_happens(story, tmp_path):
    story.train()
    assert to_wandb._active() is None
    assert not list(tmp_path.rglob(to_wandb.FILE))
