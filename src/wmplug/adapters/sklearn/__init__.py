"""Estimators with a `fit` method: scikit-learn, XGBoost, LightGBM and others that take rows and answers."""

from wmplug.adapters.sklearn.augmentation import augment

__all__ = ["augment"]
