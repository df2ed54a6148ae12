"""The filters against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.decomposition import PCA

from wmplug.statistics import outliers

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(60, 3)) @ RNG.normal(size=(3, 8)) + 0.05 * RNG.normal(size=(60, 8))
ASKED = RNG.normal(size=(20, 8))


def test_distance_is_mahalanobis():
    inverse = np.linalg.pinv(np.cov(KNOWN.T))
    expected = [mahalanobis(row, KNOWN.mean(axis=0), inverse) ** 2 for row in ASKED]
    assert outliers.distance(KNOWN)(ASKED) == pytest.approx(expected, rel=1e-6)


def test_residual_is_what_components_leave():
    axes = PCA(0.95, svd_solver="full").fit(KNOWN)
    left = ASKED - axes.inverse_transform(axes.transform(ASKED))
    assert 0 < axes.n_components_ < 8
    assert outliers.residual(KNOWN)(ASKED) == pytest.approx(np.square(left).sum(axis=1), rel=1e-9)


def test_nearest_is_the_squared_distance_from_the_nearest():
    assert outliers.nearest(KNOWN)(ASKED) == pytest.approx(cdist(ASKED, KNOWN).min(axis=1) ** 2, rel=1e-9)
