"""benchmarks/accuracy.py runs on the sample voices; its figures are kept, and its tables drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import accuracy_ablations  # noqa: E402
import accuracy_table  # noqa: E402
import accuracy_trials  # noqa: E402
import fit_scoring  # noqa: E402
import index_table  # noqa: E402
from accuracy_figures import bars, figures, logistic  # noqa: E402
from populations import LINES, Piece, Population, embed_session, of_rows, sessions  # noqa: E402

from voiceprint.scoring import scorer as scorer_module  # noqa: E402

pytestmark = pytest.mark.slow

FIGURES = json.loads((ROOT / "benchmarks/results/accuracy.json").read_text())
VOICES = ROOT / "examples/voices"
CELL = accuracy_trials.Cell("train", 1, 5, "clean", "narrow", 4)


@pytest.fixture(scope="module")
def voices() -> dict[str, Population]:
    """The sample voices, as if they were two populations of one session a speaker."""
    rows = []
    for number, folder in enumerate(sorted(path for path in VOICES.iterdir() if path.is_dir())):
        name = ("train", "mobile")[number % 2]
        rows += embed_session((name, folder.name, "1", sorted(folder.glob("*.flac"))))
    return of_rows(rows)


def made(sessions_each: dict[str, int]) -> Population:
    """Pieces of 5 s of speakers with so many sessions, three pieces each; the embeddings are random."""
    chance = np.random.default_rng(0)
    pieces = [
        Piece("chapters", name, str(session), 5 * number, 5)
        for name, count in sessions_each.items()
        for session in range(count)
        for number in range(9)
    ]
    vectors = np.abs(chance.standard_normal((len(pieces), 3, 256))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return Population("chapters", tuple(pieces), dict.fromkeys(LINES, vectors))


def test_sample_voices_are_embedded_over_every_line(voices: dict[str, Population]) -> None:
    assert {len(one.speakers) for one in voices.values()} >= {4}
    for one in voices.values():
        for line in LINES:
            assert np.isfinite(one.vectors[line][:, :2]).all()
        assert np.isfinite(one.vectors["clean"][:, 2]).all()


def test_a_small_run_measures_a_population_by_a_fit_to_the_other(
    voices: dict[str, Population], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy_trials, "SEARCHES", 8)
    projection = fit_scoring.fit([voices["mobile"]])
    cell = CELL._replace(size=len(voices["train"].speakers) // 2)
    ((measured, row, outcome),) = accuracy.measured(voices["train"], [cell], projection)
    assert measured == cell
    assert min(len(outcome.callers), len(outcome.strangers)) > 0
    for name in ("cosine rank_1", "llr fnir", "fpir at 0.05"):
        value, low, high = row[name]
        assert 0.0 <= low <= high <= 1.0
        assert 0.0 <= value <= 1.0
    assert row["min_cllr"] <= row["cllr"]
    assert accuracy.title(row) in accuracy.line(row)


def test_the_same_embeddings_give_the_same_file(voices: dict[str, Population], tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        fit_scoring.fit([*voices.values()]).save(str(tmp_path / name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_no_probe_is_of_the_session_of_its_enrollment_where_there_are_several() -> None:
    trial = accuracy_trials.trial(made({"one": 1, "two": 2}), CELL._replace(population="chapters"))
    assert set(trial.speakers[trial.own].tolist()) == {"two"}
    assert set(trial.speakers[~trial.own].tolist()) == {"one"}


def test_probes_never_overlap_the_enrollment_of_one_session() -> None:
    one = made({"one": 1, "two": 1})
    cell = CELL._replace(population="chapters", prints=3, seconds=5)
    trial = accuracy_trials.trial(one, cell)
    assert trial.own.all()
    for name in one.speakers:
        enrolled = trial.prints[name][:, 0]
        assert not (enrolled[:, None] == trial.probes[None, :, 0]).all(axis=-1).any()


def test_galleries_are_the_same_over_all_lines() -> None:
    names = [*"abcdefgh"]
    drawn = [*accuracy_trials.galleries(names, CELL)]
    assert drawn == [*accuracy_trials.galleries(names, CELL._replace(probe="full"))]
    assert {len(one) for one in drawn} == {4}


def test_logistic_regression_finds_the_scale_and_offset_of_normal_scores() -> None:
    chance = np.random.default_rng(0)
    scale, offset = logistic(chance.normal(3.0, 1.0, 100_000), chance.normal(0.0, 1.0, 100_000))
    assert scale == pytest.approx(3.0, rel=0.05)  # log ratio of N(3, 1) and N(0, 1): 3 (x - 1.5)
    assert offset == pytest.approx(1.5, rel=0.05)


def test_an_ablation_changes_its_constant_and_puts_it_back() -> None:
    shipped = scorer_module.CENTERING
    with accuracy_ablations.changing(accuracy_ablations.Change("CENTERING", 0.1)):
        assert scorer_module.CENTERING == 0.1
    assert shipped == scorer_module.CENTERING
    with accuracy_ablations.changing(accuracy_ablations.Change("within_shrinkage", 0.1)) as settings:
        assert settings["within_shrinkage"] == 0.1


def test_every_ablated_constant_exists() -> None:
    for change in accuracy_ablations.CHANGES[1:]:
        with accuracy_ablations.changing(change):
            pass


@pytest.mark.parametrize("name", accuracy_table.TABLES)
def test_a_marked_place_of_a_page_gets_the_table_of_the_kept_figures(name: str) -> None:
    page = f"before\n<!-- table: {name} -->\nold\n<!-- end -->\nafter\n"
    drawn = index_table.with_tables(page)
    assert "old" not in drawn
    assert index_table.with_tables(drawn) == drawn
    head, *lines = [line for line in drawn.splitlines() if line.startswith("|")]
    assert len(lines) > 2
    assert {line.count("|") for line in lines} == {head.count("|")}


@pytest.mark.parametrize("page", index_table.PAGES, ids=lambda page: page.name)
def test_pages_show_the_kept_figures(page: Path) -> None:
    assert index_table.with_tables(page.read_text()) == page.read_text(), "run benchmarks/index_table.py"


def test_kept_figures_are_of_every_population_and_reach_their_bars() -> None:
    assert {row["population"] for row in FIGURES["rows"]} == {"train", "other", "chapters", "mobile"}
    assert all(row["size"] * 2 <= FIGURES["speakers"][row["population"]] + 1 for row in FIGURES["rows"])
    for name, bar in FIGURES["bars"].items():
        assert bar["met"] + len(bar["failed"]) == bar["of"] == len(FIGURES["rows"]), name
        assert bar["met"] >= 0.7 * bar["of"], name


def test_the_folder_of_recordings_is_read_speaker_by_speaker(tmp_path: Path) -> None:
    for path in ("librispeech/train-clean-100/a/1.flac", "librispeech/test-other/b/1.flac",
                 "librispeech-sessions/c/x/1.flac", "librispeech-sessions/c/y/1.flac",
                 "speechocean762/d/1.flac"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert [(*row[:3], len(row[3])) for row in sessions(tmp_path)] == [
        ("train", "a", "1", 1),
        ("other", "b", "1", 1),
        ("chapters", "c", "x", 1),
        ("chapters", "c", "y", 1),
        ("mobile", "d", "1", 1),
    ]


def test_bars_judge_rates_in_parts_of_what_was_wanted(voices: dict[str, Population]) -> None:
    row = {"fpir at 0.01": [0.04], "fpir at 0.05": [0.05], "fnir at 0.05": [0.2], "exact fnir at 0.05": [0.2]}
    assert [*bars(row).values()] == [True, False, True]
    outcome = accuracy_trials.run(voices["mobile"], CELL._replace(population="mobile", size=2),
                                  fit_scoring.fit([voices["train"]]), 0.1)  # fmt: skip
    assert "llr fnir" in figures(CELL, outcome, resamples=0)
