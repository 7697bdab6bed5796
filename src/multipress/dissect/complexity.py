"""How many directions a layer uses: principal components, participation ratio, intrinsic dimension."""

from __future__ import annotations

import numpy as np

from multipress.dissect.similarity import Layer

__all__ = ["COMPLEXITIES", "TWO_NN_POINTS", "complexity", "two_nn", "two_nn_without"]

TWO_NN_POINTS = 2000
_SAME = 1e-5
_KEPT = 0.9  # the largest ratios are left out of the fit, as in the paper
COMPLEXITIES = {
    "pca_components": "principal components that hold 99 % of the variance",
    "participation_ratio": "number of directions of equal variance that would be as spread out",
    "intrinsic_dimension": "dimension of the surface that the words lie on, from two nearest neighbors",
}


def complexity(layer: Layer) -> dict[str, float]:
    """`pca_components` and `participation_ratio`; both 0 for a layer that is the same for all words."""
    values = layer.spectrum[0]
    ratio = float(values.sum() ** 2 / np.sum(values**2)) if len(values) else 0.0
    return {"pca_components": float(layer.num_components), "participation_ratio": ratio}


def two_nn(points: np.ndarray) -> float:
    """Intrinsic dimension of points (N, D): how fast the second neighbor is farther away than the first.

    Points that are as good as the same, nearer than `_SAME` of the root mean square distance, count once: between them
    lies rounding, not shape. 0 where fewer than ten differ.

    References:
        Facco et al. (2017): the line through the origin of -log(1 - F) over log(r2 / r1), without the tenth of
        the points whose ratio is largest.
    """
    return two_nn_without(points, np.zeros(len(points), dtype=int))[0]


def two_nn_without(points: np.ndarray, groups: np.ndarray) -> list[float]:
    """The intrinsic dimension of all points, and without each group of them.

    Args:
        points: Points (N, D).
        groups: The group of each point (N,), from 0.
    """
    centered = points - points.mean(axis=0, dtype=np.float64)
    squares = np.einsum("nd,nd->n", centered, centered)
    distances = squares[:, None] + squares - 2 * centered @ centered.T
    # The mean square distance of two points is twice the mean square from the center.
    same = np.tril(distances <= 2 * squares.mean() * _SAME**2, -1).any(axis=1)
    distances, of_group = distances[~same][:, ~same], groups[~same]
    np.fill_diagonal(distances, np.inf)
    kept = [np.ones(len(distances), dtype=bool), *(of_group != group for group in range(int(groups.max()) + 1))]
    return [_fit(distances[np.ix_(keep, keep)]) for keep in kept]


def _fit(squared: np.ndarray) -> float:
    """The dimension from squared distances (N, N), infinite on the diagonal."""
    if len(squared) < 10:
        return 0.0
    near = np.sqrt(np.partition(squared, 1, axis=1)[:, :2])
    ratios = np.sort(np.log(near[:, 1] / near[:, 0]))
    num_points = len(ratios)
    ratios = ratios[: int(_KEPT * num_points)]
    rises = -np.log1p(-np.arange(1, len(ratios) + 1) / num_points)
    total = ratios @ ratios
    return float(ratios @ rises / total) if total > 0 else 0.0
