"""MLflow: verdicts as metrics, entries as artifacts of the active run. Loaded by wmplug, so it imports no MLflow."""

import sys

from wmplug import hookimpl
from wmplug_mlflow import public


def _active():
    """MLflow, if the user has imported it and a run is active."""
    mlflow = sys.modules.get("mlflow")
    return mlflow if mlflow is not None and mlflow.active_run() is not None else None


@hookimpl
def wmplug_verdict(verdict, run):
    """Metrics at the verdict's step."""
    if mlflow := _active():
        metrics = {f"wmplug.{name}": value for name, value in public.numbers(verdict).items()}
        mlflow.log_metrics(metrics, step=run.get("step"))
        mlflow.set_tag("wmplug.state", verdict.state)


@hookimpl
def wmplug_event(event):
    """One artifact an entry; the register's id and head as tags."""
    if mlflow := _active():
        mlflow.log_dict(public.entry(event), f"wmplug/register/{event['seq']:06d}-{event['type']}.json")
        mlflow.set_tags({"wmplug.register": event["register"], "wmplug.head": event["hash"]})
