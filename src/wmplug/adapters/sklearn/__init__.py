"""Estimators with a `fit` method: scikit-learn, XGBoost, LightGBM and others that take rows and answers."""

from wmplug.adapters.sklearn.augmentation import augment
from wmplug.adapters.sklearn.estimator import Watermarked

__all__ = ["Watermarked", "augment"]
