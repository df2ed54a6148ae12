"""LightGBM's native interface. Estimators such as LGBMClassifier are `wmplug.adapters.sklearn`'s."""

from wmplug.adapters.lightgbm.callback import log_watermark

__all__ = ["log_watermark"]
