"""The transformers Trainer, and what is built on it."""

from wmplug.adapters.transformers.callback import WatermarkCallback

__all__ = [
    "WatermarkCallback",
]
