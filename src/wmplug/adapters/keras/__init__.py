"""Keras `model.fit`, on torch, jax and tensorflow."""

from wmplug.adapters.keras.callback import WatermarkCallback as WatermarkCallback
from wmplug.adapters.keras.suspects import suspect as suspect
