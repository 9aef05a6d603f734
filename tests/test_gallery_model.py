"""The galleries of the benchmarks: as real embeddings are, the same for the same seed, and of any size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from gallery_model import BLOCK, FIGURES, Gallery, GalleryModel, gallery_quantiles, quantiles


@pytest.fixture(scope="module")
def model() -> GalleryModel:
    return GalleryModel.load()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scores_are_distributed_as_those_of_real_speech(model, seed):
    made = gallery_quantiles(model.gallery(3_000, seed))
    assert np.abs(np.subtract(made["genuine"], model.genuine)).max() < 0.03
    assert np.abs(np.subtract(made["impostor"], model.impostor)).max() < 0.03


def test_probes_score_with_their_callers_as_genuine_recordings_do(model):
    gallery = model.gallery(6_000)
    callers, probes = gallery.probes(2_000)
    first = np.searchsorted(gallery.callers(), callers)
    own = np.einsum("nd,nd->n", gallery.matrix()[first], probes)
    assert np.abs(np.subtract(quantiles(own), model.genuine)).max() < 0.03
    assert own.max() < 0.999  # never the stored print itself


def test_vectors_are_what_the_encoder_gives(model):
    vectors = model.gallery(1_000).matrix()
    assert vectors.dtype == np.float32
    assert vectors.shape == (1_000, 256)
    assert (vectors >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert 0.3 < (vectors == 0).mean() < 0.6


def test_same_seed_gives_the_same_gallery_and_another_seed_another(model):
    one, same, other = (model.gallery(500, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.matrix(), same.matrix())
    np.testing.assert_array_equal(one.probes(20)[1], same.probes(20)[1])
    assert not np.array_equal(one.matrix(), other.matrix())
    assert not np.array_equal(one.probes(20, seed=1)[1], one.probes(20, seed=2)[1])


def test_small_gallery_is_the_beginning_of_a_large_one(model):
    large = model.gallery(BLOCK * 2 + 5_000)  # of more than one block
    assert sum(1 for _ in large.blocks()) > 1
    small = model.gallery(3_000)
    np.testing.assert_array_equal(small.matrix(), large.matrix()[:3_000])
    np.testing.assert_array_equal(small.callers(), large.callers()[:3_000])


def test_blocks_agree_with_the_whole(model):
    gallery = model.gallery(BLOCK * 2 + 5_000)
    blocks = list(gallery.blocks())
    np.testing.assert_array_equal(np.concatenate([block.ids for block in blocks]), np.arange(1, 25_001))
    np.testing.assert_array_equal(np.concatenate([block.callers for block in blocks]), gallery.callers())


def test_callers_have_one_to_three_prints_and_every_probe_is_of_one_of_them(model):
    gallery: Gallery = model.gallery(BLOCK * 2 + 5_000)
    counts = np.bincount(gallery.callers())
    assert set(counts.tolist()) == {1, 2, 3}
    callers, probes = gallery.probes(50)
    assert callers.max() <= gallery.callers()[-1]
    assert (callers >= BLOCK).any()  # also of the second block
    best = (probes @ gallery.matrix().T).argmax(axis=1)
    assert (gallery.callers()[best] == callers).mean() > 0.7


def test_file_of_the_model_is_small():
    assert FIGURES.stat().st_size < 150_000
