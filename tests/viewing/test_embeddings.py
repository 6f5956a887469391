import builtins

import numpy as np
import pytest

from sage_hf.viewing import Embeddings, project, triplet_figures


@pytest.fixture
def embeddings():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 8)) * np.arange(1, 9)
    return Embeddings("model", x, x + generator.normal(size=x.shape), -x)


def test_principal_components_by_a_singular_value_decomposition(embeddings):
    plane = project(embeddings)
    points = np.concatenate([embeddings.anchors, embeddings.positives, embeddings.negatives])
    centred = points - points.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    found = np.concatenate([plane.anchors, plane.positives, plane.negatives])
    signs = np.sign((found * expected).sum(axis=0))  # an axis may point either way
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)
    np.testing.assert_allclose(plane.explained, sizes[:2] ** 2 / (sizes**2).sum())


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 5)])
def test_fewer_directions_than_axes(shape):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    plane = project(Embeddings("model", x, x + 1, x + 2))
    assert plane.negatives.shape == (shape[0], 2)
    assert plane.explained[0] == pytest.approx(1)


def test_all_in_one_place():
    x = np.ones((2, 3))
    assert project(Embeddings("model", x, x, x)).explained == (0, 0)


def test_distances_by_hand(embeddings):
    def cosine(a, b):
        return 1 - (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))

    pairs = list(zip(embeddings.anchors, embeddings.positives, embeddings.negatives, strict=True))
    found = triplet_figures(embeddings)
    assert found["positive"] == pytest.approx(np.mean([cosine(x, positive) for x, positive, _ in pairs]))
    assert found["negative"] == pytest.approx(2)
    assert found["closer"] == 1


def test_umap_is_the_users_to_install(embeddings, monkeypatch):
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "umap":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        project(embeddings, "umap")
    with pytest.raises(ValueError, match="Choose one of pca, umap"):
        project(embeddings, "tsne")
