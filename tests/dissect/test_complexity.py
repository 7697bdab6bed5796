"""How many directions a layer uses, against scikit-learn, loops, and surfaces of known dimension."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from multipress.dissect.complexity import complexity, two_nn, two_nn_without
from multipress.dissect.jackknife import group_bounds, intervals
from multipress.dissect.moments import cross_moments
from multipress.dissect.similarity import layer_of


def described(x):
    return complexity(layer_of(cross_moments(x, x, np.array([0, len(x)]))))


@pytest.mark.parametrize("seed", range(3))
def test_components_and_participation_are_those_of_scikit_learns_variances(seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((80, 12)) * random.exponential(size=12)
    variances = PCA(svd_solver="full").fit(x).explained_variance_
    found = described(x)
    assert found["pca_components"] == np.searchsorted(np.cumsum(variances) / variances.sum(), 0.99) + 1
    assert found["participation_ratio"] == pytest.approx(variances.sum() ** 2 / np.sum(variances**2))


def test_equal_directions_count_as_many_and_a_constant_as_none():
    x = np.concatenate([np.eye(6), -np.eye(6)])
    assert described(x) == pytest.approx({"pca_components": 6, "participation_ratio": 6})
    assert described(np.ones((10, 4))) == {"pca_components": 0, "participation_ratio": 0}


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_intrinsic_dimension_of_a_cube_is_found_in_many_more_directions(dimension):
    random = np.random.default_rng(dimension)
    cube = random.random((1500, dimension)) @ np.linalg.qr(random.standard_normal((30, dimension)))[0].T
    assert two_nn(cube) == pytest.approx(dimension, rel=0.12)


def slow_two_nn(points):
    distances = cdist(points, points)
    ratios = []
    for row in distances:
        near = np.sort(row)[1:3]
        ratios.append(near[1] / near[0])
    logs = np.log(np.sort(ratios))[: int(0.9 * len(ratios))]
    rises = [-np.log(1 - (i + 1) / len(ratios)) for i in range(len(logs))]
    return np.linalg.lstsq(logs[:, None], np.array(rises), rcond=None)[0][0]


def test_the_fit_is_that_of_a_loop_and_repeated_words_count_once():
    points = np.random.default_rng(0).standard_normal((120, 4))
    assert two_nn(points) == pytest.approx(slow_two_nn(points), rel=1e-6)
    assert two_nn(np.concatenate([points, points[:30]])) == pytest.approx(two_nn(points), rel=1e-9)
    nearly = points[:30] + 1e-7 * np.random.default_rng(3).standard_normal((30, 4))  # as rounding makes them
    assert two_nn(np.concatenate([points, nearly])) == pytest.approx(two_nn(points), rel=1e-4)
    assert two_nn(np.ones((50, 3))) == 0.0


def test_leaving_out_a_group_of_points_is_computing_without_them():
    points = np.random.default_rng(1).standard_normal((90, 3))
    groups = np.repeat([0, 1, 2], 30)
    found = two_nn_without(points, groups)
    expected = [two_nn(points), *(two_nn(points[groups != group]) for group in range(3))]
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_mean_is_students():
    random = np.random.default_rng(2)
    values = random.standard_normal((10, 5)).mean(axis=1)
    without = [{"mean": float(np.delete(values, i).mean())} for i in range(10)]
    low, high = intervals({"mean": float(values.mean())}, without, {})["mean"]
    assert (low, high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())


def test_a_number_that_comes_in_steps_may_be_one_step_off_though_no_tenth_moves_it():
    found = intervals({"count": 4.0, "share": 0.5}, [{"count": 4.0, "share": 0.5}] * 10, {"count": 1.0})
    assert found == {"count": (3.0, 5.0), "share": (0.5, 0.5)}


def test_groups_of_rows_are_neighbors_and_about_equal():
    bounds = group_bounds(47)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, 47, 11)
    assert set(np.diff(bounds)) == {4, 5}
