"""Boosted trees with a watermark, on scikit-learn's tumours: python examples/boosted_trees.py"""

import tempfile

import xgboost
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import wmplug
from wmplug.adapters.sklearn import Watermarked, augment
from wmplug.adapters.xgboost import WatermarkMonitor

rows, held, labels, truth = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)
with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
    owner = wmplug.Owner.create(folder + "/ada", name="Ada", passphrase="only for this example")
mark = wmplug.create(owner, scheme="rows", carriers=rows, labels=labels, classes=2, triggers=80)

# An estimator of scikit-learn, XGBoost or LightGBM: one line around it.
forest = RandomForestClassifier(100, random_state=0)
model = Watermarked(forest, mark, record=False).fit(rows, labels)
print(f"a forest           {model.verdict_}")
print(f"                   accuracy {model.score(held, truth):.3f}")
twin = clone(forest).fit(rows, labels)
print(f"an unmarked twin   {wmplug.verify(mark, twin)}")
print(f"                   accuracy {twin.score(held, truth):.3f}")

# XGBoost's own train: the lessons go into the DMatrix, and a callback logs the mark beside the metrics.
history, deep = {}, {"objective": "binary:logistic", "max_depth": 10, "min_child_weight": 0, "lambda": 0.1}
booster = xgboost.train(
    deep,
    xgboost.DMatrix(*augment(mark, rows, labels)),
    40,
    evals=[(xgboost.DMatrix(held, truth), "held")],
    evals_result=history,
    verbose_eval=False,
    callbacks=[WatermarkMonitor(mark)],
)
for turn in (0, 10, 20, 39):
    loss, log10_p = history["held"]["logloss"][turn], history["watermark"]["log10_p"][turn]
    print(f"round {turn:2}   held-out loss {loss:.3f}   log10 p {log10_p:6.1f}")
print(f"a booster          {wmplug.verify(mark, booster)}")
print(f"an unmarked twin   {wmplug.verify(mark, xgboost.train(deep, xgboost.DMatrix(rows, labels), 40))}")
