"""The tools: generated galleries are like real embeddings, and a fit gives the same file again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.fit_scoring import fit
from tools.gallery_model import BLOCK, FILE, GalleryModel, gallery_quantiles, quantiles
from tools.populations import LINES, Piece, Population, embed_piece, sessions
from voiceprint import load_audio

VOICES = Path(__file__).resolve().parents[1] / "examples/voices"


@pytest.fixture(scope="module")
def model() -> GalleryModel:
    return GalleryModel.load()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scores_are_distributed_as_those_of_real_speech(model: GalleryModel, seed: int) -> None:
    generated = gallery_quantiles(model.gallery(3_000, seed))
    assert np.abs(np.subtract(generated["genuine"], model.genuine)).max() < 0.03
    assert np.abs(np.subtract(generated["impostor"], model.impostor)).max() < 0.03


def test_probes_score_with_their_callers_as_genuine_recordings_do(model: GalleryModel) -> None:
    gallery = model.gallery(6_000)
    callers, probes = gallery.probes(2_000)
    first = np.searchsorted(gallery.callers(), callers)
    own = np.einsum("nd,nd->n", gallery.matrix()[first], probes)
    assert np.abs(np.subtract(quantiles(own), model.genuine)).max() < 0.03
    assert own.max() < 0.999  # never the stored print itself


def test_vectors_are_like_the_encoder_s(model: GalleryModel) -> None:
    vectors = model.gallery(1_000).matrix()
    assert vectors.dtype == np.float32
    assert vectors.shape == (1_000, 256)
    assert (vectors >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert 0.3 < (vectors == 0).mean() < 0.6


def test_same_seed_gives_the_same_gallery_and_another_seed_another(model: GalleryModel) -> None:
    one, same, other = (model.gallery(500, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.matrix(), same.matrix())
    np.testing.assert_array_equal(one.probes(20)[1], same.probes(20)[1])
    assert not np.array_equal(one.matrix(), other.matrix())
    assert not np.array_equal(one.probes(20, seed=1)[1], one.probes(20, seed=2)[1])


def test_small_gallery_is_the_beginning_of_a_large_one_whose_blocks_agree_with_it(
    model: GalleryModel,
) -> None:
    large = model.gallery(BLOCK * 2 + 5_000)  # more than one block
    blocks = list(large.blocks())
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate([block.ids for block in blocks]), np.arange(1, 25_001))
    np.testing.assert_array_equal(np.concatenate([block.callers for block in blocks]), large.callers())
    small = model.gallery(3_000)
    np.testing.assert_array_equal(small.matrix(), large.matrix()[:3_000])
    np.testing.assert_array_equal(small.callers(), large.callers()[:3_000])


def test_callers_have_one_to_three_prints_and_every_probe_is_of_a_caller(model: GalleryModel) -> None:
    gallery = model.gallery(BLOCK * 2 + 5_000)
    assert set(np.bincount(gallery.callers()).tolist()) == {1, 2, 3}
    callers, probes = gallery.probes(50)
    assert callers.max() <= gallery.callers()[-1]
    assert (callers >= BLOCK).any()  # also of the second block
    best = (probes @ gallery.matrix().T).argmax(axis=1)
    assert (gallery.callers()[best] == callers).mean() > 0.7


def test_model_of_galleries_is_a_small_file_that_is_read_as_it_was_written(
    model: GalleryModel, tmp_path: Path
) -> None:
    assert FILE.stat().st_size < 150_000
    model.save(tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == FILE.read_bytes()


def test_piece_is_embedded_over_every_line() -> None:
    audio = load_audio(VOICES / "amara/1.flac")[0][: 5 * 16_000]
    for line in LINES:
        vectors = embed_piece(audio, line)
        present = np.isfinite(vectors).all(axis=1)
        assert present.tolist() == [True, True, line != "noise"]


def test_same_embeddings_give_the_same_projection_file(model: GalleryModel, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    voices = np.repeat(model.voices(30, chance), 4, axis=0)
    pieces = tuple(Piece("train", str(n // 4), "1", 5 * (n % 4), 5) for n in range(len(voices)))
    vectors = {line: np.stack([model.recordings(voices, chance) for _ in range(3)], axis=1) for line in LINES}
    population = Population("train", pieces, vectors)
    for name in ("a.npz", "b.npz"):
        fit([population]).save(str(tmp_path / name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_folder_of_recordings_is_read_speaker_by_speaker(tmp_path: Path) -> None:
    for path in ("librispeech/train-clean-100/a/1.flac", "librispeech/test-other/b/1.flac",
                 "librispeech-sessions/c/x/1.flac", "librispeech-sessions/c/y/1.flac",
                 "speechocean762/d/1.flac"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert [(*session[:3], len(session.files)) for session in sessions(tmp_path)] == [
        ("train", "a", "1", 1),
        ("other", "b", "1", 1),
        ("chapters", "c", "x", 1),
        ("chapters", "c", "y", 1),
        ("mobile", "d", "1", 1),
    ]
