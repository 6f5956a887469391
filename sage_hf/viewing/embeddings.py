"""Where anchors, positives and negatives lie in a model's embedding space, on a plane and in figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..objectives.sage import distance
from .rows import Embeddings

METHODS = ("pca", "umap")


@dataclass
class Projection:
    """
    Embeddings on a plane.

    Args:
        model (`str`): its name.
        method (`str`): `"pca"` or `"umap"`.
        anchors (`numpy.ndarray`): of x, (rows, 2).
        positives (`numpy.ndarray`): of x+, likewise.
        negatives (`numpy.ndarray`): of x-, likewise.
        explained (`tuple[float, float]`, *optional*): the share of the variance along each axis, for PCA.
    """

    model: str
    method: str
    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    explained: tuple[float, float] | None = None


def project(embeddings: Embeddings, method: str = "pca", seed: int = 0) -> Projection:
    """
    Lay a model's embeddings of x, x+ and x- on one plane, fitted to all of them together.

    Two models have spaces of their own, and so planes of their own: compare how the three lie to each other.

    Args:
        embeddings ([`Embeddings`]): of one model.
        method (`str`, *optional*, defaults to `"pca"`): principal components (scikit-learn), or `"umap"` (McInnes et
            al. 2018), for which `umap-learn` has to be installed.
        seed (`int`, *optional*, defaults to 0): of UMAP.

    Raises:
        `ValueError`: an unknown method, or too few rows for UMAP.
        `ImportError`: `umap-learn` is not installed.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.viewing import Embeddings, project
    >>> x = np.array([[0.0, 3.0, 1.0], [0.0, -3.0, 1.0]])
    >>> projection = project(Embeddings("model", x, x + [1, 0, 0], x - [1, 0, 0]))
    >>> [round(share, 3) for share in projection.explained]
    [0.931, 0.069]

    ```
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}. Choose one of {', '.join(METHODS)}.")
    parts = (embeddings.anchors, embeddings.positives, embeddings.negatives)
    points = np.concatenate(parts).astype(np.float64)
    explained = None
    if method == "umap":
        plane = _umap(points, seed)
    else:
        plane, explained = _principal_components(points)
    anchors, positives, negatives = np.split(plane, 3)
    return Projection(embeddings.model, method, anchors, positives, negatives, explained)


def _principal_components(points: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    from sklearn.decomposition import PCA

    if np.allclose(points, points[0]):  # nothing varies, and the shares of it would be 0 / 0
        return np.zeros((len(points), 2)), (0.0, 0.0)
    # All singular vectors: the randomised solver that is chosen for large inputs is not exact.
    components = min(2, *points.shape)
    pca = PCA(n_components=components, svd_solver="full").fit(points)
    missing = 2 - components
    shares = [*map(float, pca.explained_variance_ratio_), *[0.0] * missing]
    return np.pad(pca.transform(points), ((0, 0), (0, missing))), (shares[0], shares[1])


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise ImportError("UMAP needs the package umap-learn: pip install umap-learn. PCA needs nothing.") from None
    if len(points) < 6:
        raise ValueError(f"UMAP needs two rows with a map or more, there are {len(points) // 3}. Use PCA.")
    neighbours = min(15, len(points) - 1)
    # Without a number of jobs of its own it warns that a seed makes it use one.
    return np.asarray(UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points))


def triplet_figures(embeddings: Embeddings) -> dict[str, float]:
    """
    How far x+ and x- are from x, by the cosine distance of [`SageObjective`] (1 - similarity, in [0, 2]).

    Args:
        embeddings ([`Embeddings`]): of one model.

    Returns:
        `dict[str, float]`: `positive` and `negative`, mean distances of x+ and of x- to x; `closer`, the share of rows
        whose x+ is closer to x than x- is, in [0, 1].

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.viewing import Embeddings, triplet_figures
    >>> x = np.array([[1.0, 0.0]])
    >>> triplet_figures(Embeddings("model", x, 2 * x, x[:, ::-1].copy()))
    {'positive': 0.0, 'negative': 1.0, 'closer': 1.0}

    ```
    """
    anchors, positives, negatives = (
        torch.from_numpy(np.asarray(part, dtype=np.float64))
        for part in (embeddings.anchors, embeddings.positives, embeddings.negatives)
    )
    positive, negative = distance(anchors, positives, "cosine"), distance(anchors, negatives, "cosine")
    return {
        "positive": float(positive.mean()),
        "negative": float(negative.mean()),
        "closer": float((positive < negative).double().mean()),
    }
