"""Verdicts and register entries of wmplug in the active MLflow or W&B run."""
