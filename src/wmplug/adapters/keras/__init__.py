"""Keras `model.fit`, on torch, jax and tensorflow."""

from wmplug.adapters.keras.callback import WatermarkCallback

__all__ = [
    "WatermarkCallback",
]
