"""XGBoost's native interface. Estimators such as XGBClassifier are `wmplug.adapters.sklearn`'s."""

from wmplug.adapters.xgboost.monitor import WatermarkMonitor
from wmplug.adapters.xgboost.stream import MarkedDataIter

__all__ = ["MarkedDataIter", "WatermarkMonitor"]
