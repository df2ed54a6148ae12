"""W&B: verdicts in the history, entries in one artifact of the active run. Loaded by wmplug, so it imports no wandb."""

import json
import sys
from pathlib import Path

from wmplug import hookimpl
from wmplug_mlflow import public

FILE = "wmplug-register.jsonl"
_LOGGED_AT = ("training.finished", "anchor")


def _active():
    """The active run, if the user has imported wandb and started one."""
    wandb = sys.modules.get("wandb")
    return getattr(wandb, "run", None)


@hookimpl
def wmplug_verdict(verdict, run):
    """Numbers over `wmplug/step`."""
    if active := _active():
        active.define_metric("wmplug/*", step_metric="wmplug/step")
        numbers = {f"wmplug/{name}": value for name, value in public.numbers(verdict).items()}
        step = {} if run.get("step") is None else {"wmplug/step": run["step"]}
        # Not committed, since a commit would count as a step of the user's own.
        active.log({**numbers, **step}, commit=False)
        active.summary["wmplug/state"] = verdict.state


@hookimpl
def wmplug_event(event):
    """One line an entry; the file is an artifact when training has ended, and at each timestamp."""
    if active := _active():
        file = Path(active.dir) / FILE
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(public.entry(event)) + "\n")
        active.summary.update({"wmplug/register": event["register"], "wmplug/head": event["hash"]})
        if event["type"] in _LOGGED_AT:
            active.log_artifact(str(file), name=f"wmplug-register-{event['register'][:16]}", type="evidence")
