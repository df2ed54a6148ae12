"""The transformers Trainer, and trainers built on it."""

from wmplug.adapters.transformers.callback import WatermarkCallback

__all__ = [
    "WatermarkCallback",
]
