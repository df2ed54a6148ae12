import json
from pathlib import Path

import mlflow
import pytest
from wmplug_mlflow import to_mlflow

from wmplug.register import Register


@pytest.fixture(autouse=True)
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the light package has no database
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield
    assert mlflow.active_run() is None


def test_verdicts_are_metrics_at_their_steps(story):
    with mlflow.start_run() as run:
        verdict = story.train()
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run.info.run_id, "wmplug.log10_p")
    assert [point.step for point in history] == [10, 20]
    assert history[-1].value == pytest.approx(verdict.log10_p)
    assert client.get_run(run.info.run_id).data.tags["wmplug.state"] == verdict.state


def test_entries_are_artifacts_and_the_head_is_a_tag(story, tmp_path):
    with mlflow.start_run() as run:
        story.train()
    client = mlflow.MlflowClient()
    files = [one.path for one in client.list_artifacts(run.info.run_id, "wmplug/register")]
    entries = [entry for entry in Register(story.owner.path).entries() if "run" in entry.body]
    assert files == [f"wmplug/register/{entry.seq:06d}-{entry.type}.json" for entry in entries]
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["wmplug.register"] == story.owner.commitment
    assert tags["wmplug.head"] == entries[-1].hash
    told = json.loads(Path(client.download_artifacts(run.info.run_id, files[-1], str(tmp_path))).read_bytes())
    assert told["hash"] == entries[-1].hash
    assert told["state"] == "inconclusive"


def test_what_may_be_secret_stays_here(story, tmp_path):
    with mlflow.start_run():
        story.train()
    sent = b"".join(file.read_bytes() for file in (tmp_path / "mlruns").rglob("*") if file.is_file())
    assert b"training.started" in sent
    secrets = [b"trade secret", b"Ada"]
    secrets += [root.hex().encode() for root in story.owner.roots()]
    assert [one for one in secrets if one in sent] == []


def test_without_a_run_nothing_happens(story, tmp_path):
    story.train()
    assert not (tmp_path / "mlruns").exists()
    assert to_mlflow._active() is None
