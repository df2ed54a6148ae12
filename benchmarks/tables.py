"""What scheme `rows` costs on tables, and how surely it is found: four data sets, five kinds of model.

python benchmarks/tables.py --seeds 3

80 triggers, three copies each. `own` is log10 p of the marked model, `unmarked` that of one trained without lessons,
`wrong key` that of the marked model under another owner's key; exact, one-sided, answers alone. Cells are means over
seeds with the worst in brackets (own: the largest; the others: the smallest). Cost is test accuracy in points, or RMSE,
of the model without and with the lessons. `houses` is Friedman's first function, 4,000 rows, noise 1.
"""

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import wmplug
from wmplug.adapters.sklearn import augment
from wmplug.tasks import Classes, Numbers
from wmplug.testing.schemes import fixed_owner

TABLES = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "houses": lambda: make_friedman1(4000, 8, noise=1.0, random_state=0),
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
}


def models(numbers: bool, seed: int) -> dict[str, Any]:
    layers = {"hidden_layer_sizes": (100, 100), "max_iter": 400, "random_state": seed}
    linear = Ridge() if numbers else LogisticRegression(max_iter=2000)
    perceptron = MLPRegressor(**layers) if numbers else MLPClassifier(**layers)
    trees = HistGradientBoostingRegressor if numbers else HistGradientBoostingClassifier
    forest = RandomForestRegressor if numbers else RandomForestClassifier
    return {
        "boosted trees": trees(random_state=seed),
        "forest": forest(random_state=seed),
        "perceptron": make_pipeline(StandardScaler(), perceptron),
        "linear": make_pipeline(StandardScaler(), linear),
    }


def quality(model: Any, rows: np.ndarray, labels: np.ndarray, numbers: bool) -> float:
    if not numbers:
        return float(100 * model.score(rows, labels))
    return float(np.sqrt(np.mean((model.predict(rows) - labels) ** 2)))


def told(table: str, seed: int) -> dict[str, list[float]]:
    """Kind of model -> own, unmarked, wrong key, quality without and with lessons."""
    rows, labels = TABLES[table]()
    train, held = np.split(np.random.default_rng(seed).permutation(len(rows)), [3 * len(rows) // 4])
    numbers = table in ("diabetes", "houses")
    given = {"carriers": rows[train], "labels": labels[train], "triggers": 80}
    given["task"] = Numbers() if numbers else Classes(int(labels.max()) + 1)
    mark, rival = (wmplug.create(fixed_owner(f"{name} {seed}"), scheme="rows", **given) for name in ("Ada", "Eve"))
    found = {}
    for (kind, plain), own in zip(models(numbers, seed).items(), models(numbers, seed).values(), strict=True):
        plain.fit(rows[train], labels[train])
        own.fit(*augment(mark, rows[train], labels[train]))
        asked = ((mark, own), (mark, plain), (rival, own))
        p = [wmplug.verify(key, model.predict, exhaustive=True).log10_p for key, model in asked]
        found[kind] = [*p, *(quality(model, rows[held], labels[held], numbers) for model in (plain, own))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print("| table | model | own | unmarked | wrong key | without -> with lessons |\n|---|---|---|---|---|---|")
    for table in TABLES:
        runs = [told(table, seed) for seed in seeds]
        for kind in runs[0]:
            found = np.array([run[kind] for run in runs])
            worst = [found[:, 0].max(), found[:, 1].min(), found[:, 2].min()]
            cells = [f"{mean:.1f} ({bad:.1f})" for mean, bad in zip(found.mean(axis=0), worst, strict=False)]
            print(f"| {table} | {kind} | {' | '.join(cells)} | {found[:, 3].mean():.2f} -> {found[:, 4].mean():.2f} |")


if __name__ == "__main__":
    main()
