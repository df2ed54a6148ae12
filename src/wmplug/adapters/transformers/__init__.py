"""The transformers Trainer, and what is built on it."""

from wmplug.adapters.transformers.callback import WatermarkCallback as WatermarkCallback
from wmplug.adapters.transformers.suspects import suspect as suspect
