"""Each benchmark runs small, from end to end, as a user runs it, and its answers are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from postgres_server import shared_server

from voiceprint import load_audio

ROOT = Path(__file__).resolve().parents[1]
VOICES = ROOT / "examples/voices"

pytestmark = pytest.mark.slow


def run(name: str, options: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The figures that the benchmark writes, and its output."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options.split(), "--results", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (written,) = folder.glob(f"{name}*.json")
    figures = json.loads(written.read_text())
    assert figures["commit"]
    assert figures["packages"]["numpy"] == np.__version__
    return figures, done.stdout


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample voices as a folder of two populations, each voice one recording of about 20 s."""
    data = tmp_path_factory.mktemp("data")
    folders = (data / "librispeech/train-clean-100", data / "speechocean762")
    for folder in (*folders, data / "librispeech/test-other", data / "librispeech-sessions"):
        folder.mkdir(parents=True)
    for number, voice in enumerate(sorted(path for path in VOICES.iterdir() if path.is_dir())[:8]):
        audio = np.concatenate([load_audio(path)[0] for path in sorted(voice.glob("*.flac"))])
        file = folders[number % 2] / voice.name / "1.flac"
        file.parent.mkdir()
        soundfile.write(file, np.resize(audio, 20 * 16_000), 16_000)
    return data


def test_storage_measures_every_store_and_finds_it_whole(tmp_path: Path) -> None:
    figures, _ = run("storage", "--rows 1300", tmp_path)
    assert {"json", "sqlite"} <= figures.keys()
    for kind in figures.keys() & {"json", "sqlite", "redis"}:
        assert figures[kind]["rows"] == 1300
        assert {"get", "get at 1000", "save", "touch", "scan per s"} <= figures[kind].keys()


def test_groups_are_found_as_by_a_linear_search(tmp_path: Path) -> None:
    figures, _ = run("groups", "--prints 3000 --sizes 10 100 --rounds 5", tmp_path)
    groups = [row for row in figures["rows"] if row["search"] == "groups"]
    assert [row["group"] for row in groups] == ["group of 10", "group of 100"]
    assert {(row["recall_at_k"], row["found"]) for row in groups} == {(1.0, 5)}


def test_finding_measures_searches_with_and_without_an_index(tmp_path: Path) -> None:
    figures, _ = run("finding", "--callers 900", tmp_path)
    assert {"one account", "one account, indexed", "no null"} <= figures["sqlite"].keys()


def test_match_names_every_probe_right_and_its_stages_add_up(tmp_path: Path) -> None:
    figures, _ = run("match", "--prints 400 --rounds 4", tmp_path)
    assert figures["named_right"] == figures["matches"] == 4
    assert {"audio", "encoder", "search", "records", "touch", "decision", "total"} <= figures["ms"].keys()
    assert figures["embeddings_first"] > 0.9 * figures["embeddings"] == 0.9 * 12
    assert figures["embedding_ms"].keys() == {"sync", "search", "records", "decision", "total"}
    assert figures["linear_ms"].keys() == {"loop", "product"}


def test_the_service_answers_as_the_library_does(tmp_path: Path) -> None:
    figures, _ = run("server_throughput", "--prints 300 --rounds 1 --seconds 1", tmp_path)
    assert figures["ratio"] > 0
    for way in ("library", "service", "service, by Client"):
        assert figures[way]["per_s"] > 0
        assert figures[way]["cpu_ms"] > 0


def test_every_enrolled_embedding_is_in_the_store(tmp_path: Path) -> None:
    figures, _ = run("own_embeddings", "--rows 2000", tmp_path)
    assert figures["ids"].keys() == {"in order", "random"}
    for measured in figures["ids"].values():
        assert measured["stored"] == 2_000
        assert measured["per s"] > 0


def test_every_enrolled_embedding_is_in_postgresql(tmp_path: Path) -> None:
    url = shared_server().url()
    figures, _ = run("own_embeddings", f"--rows 300 --postgresql {url}", tmp_path)
    assert [measured["stored"] for measured in figures["ids"].values()] == [300, 300]


def test_partitions_are_compared_with_none(tmp_path: Path) -> None:
    url = shared_server().url()
    figures, _ = run("partitions", f"{url} --callers 300 --partitions 2 --rounds 3", tmp_path)
    for name in ("callers_of 50 ids", "page of 500 callers", "get a caller", "enroll", "delete"):
        assert figures[name]["ratio"] > 0


def test_every_opening_of_a_store_gives_the_right_answer(tmp_path: Path) -> None:
    figures, _ = run("opening", f"--prints 500 --changes 100 --probes 5 --folder {tmp_path}", tmp_path)
    for opening in ("without_snapshot", "with_snapshot", "with_old_snapshot"):
        assert figures[opening]["right"], opening
    assert figures["with_old_snapshot"]["after_changes_right"]


def test_streams_end_as_identify_does(tmp_path: Path) -> None:
    figures, _ = run("streaming", f"{VOICES / 'amara'}", tmp_path)
    assert [row["audio"] for row in figures["rows"]] == ["as recorded", "mu-law", "quiet", "pauses"]
    for row in figures["rows"]:
        assert row["count"] == 1
        assert row["largest_difference"] < 1e-4


def test_encoder_is_measured_beside_resemblyzer(tmp_path: Path) -> None:
    figures, _ = run("encoder", "--clips 2 --processes 1 --rounds 2", tmp_path)
    assert figures["lowest_cosine"]["onnx"] > 0.9999
    assert figures["warm_ms"].keys() == {"onnx", "onnx, one thread", "onnx-int8", "resemblyzer"}


def test_the_encoder_by_torch_is_measured_beside_the_default_one(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings.npz"
    audios = [load_audio(path)[0] for path in sorted(VOICES.glob("*/1.flac"))[:4]]
    pcm = {str(n): np.round(32767 * audio).astype(np.int16) for n, audio in enumerate(audios)}
    np.savez(recordings, **pcm)
    options = f"--device cpu --seconds 0.1 --recordings {recordings}"
    figures, printed = run("encoder_gpu", options, tmp_path)
    assert figures["clips"] == 4
    assert abs(figures["one_minus_cosine"]["float32"]["max"]) < 1e-6
    stages = {row["stage"]: row["partials_per_s"] for row in figures["rows"]}
    assert {"network", "spectrograms", "spectrograms + network", "packing", "whole"} <= stages.keys()
    assert {"CPU: ONNX Runtime, 1 threads", "whole, 4 threads of 1 clips"} <= stages.keys()
    assert min(stages.values()) > 0
    assert "| spectrograms + network | float32 |" in printed


@pytest.mark.parametrize("own", [False, True])
def test_index_and_flat_search_are_measured_at_every_size(tmp_path: Path, own: bool) -> None:
    options = "--sizes 200 400 --probes 30"
    if own:
        np.save(tmp_path / "own.npy", np.random.default_rng(0).standard_normal((500, 16)))
        options += f" --vectors {tmp_path / 'own.npy'}"
    figures, printed = run("index", options, tmp_path)
    rows = figures["rows"]
    assert [(row["size"], row["search"]) for row in rows] == [
        (size, search) for size in (200, 400) for search in ("VectorIndex", "faiss flat")
    ]
    for row in rows:  # both compare with all; float16 may exchange neighbors that are all but equal
        assert min(row["recall_at_1"], row["recall_at_k"]) >= (1 if row["search"] == "faiss flat" else 0.9)
    assert [(grown["from"], grown["to"]) for grown in figures["growth"]] == [(50, 200), (100, 400)]
    assert set(rows[0]["writes_ms"]) == {"add", "replace", "remove", "search"}
    assert "| 400 | VectorIndex |" in printed


def test_accuracy_and_shortlist_of_the_sample_voices(recordings: Path, tmp_path: Path) -> None:
    options = f"{recordings} --cache {tmp_path / 'embeddings.npz'}"
    figures, _ = run("accuracy", options, tmp_path)
    assert figures["speakers"] == {"train": 4, "mobile": 4}
    for row in figures["rows"]:
        assert row["size"] == 2
        assert row["min_cllr"] <= row["cllr"]
        for name in ("cosine rank_1", "llr fnir", "fpir at 0.05"):
            value, low, high = row[name]
            assert 0.0 <= low <= value <= high <= 1.0, (row, name)
    figures, _ = run("shortlist", f"{options} --prints 2500", tmp_path)
    assert figures["galleries"][0]["callers"] == 1_000
    assert figures["prints_a_caller"]["1"]["first"] > 0.5


def test_enrollment_measures_threads_and_processes(tmp_path: Path) -> None:
    figures, out = run("enrollment", "--rows 8 --rounds 1 --ways threads processes", tmp_path)
    assert list(figures["ways"]) == ["1 thread", "threads", "processes"]
    assert figures["ways"]["1 thread"]["times_one_thread"] == 1.0
    assert all(row["peak_mb"] > 50 for row in figures["ways"].values())
    assert list(figures["four_times_the_rows"]) == ["threads", "processes"]
    assert out.count("recordings_per_s") == 5


def test_the_audit_log_is_measured_in_each_mode(tmp_path: Path) -> None:
    figures, out = run("audit", "--callers 20 --rounds 20", tmp_path)
    assert set(figures["modes"]) == {"without a log", "thread", "thread, fsync", "wait", "wait, fsync"}
    assert all(mode["us"]["p50"] > 0 for mode in figures["modes"].values())
    assert figures["log"]["lines"] == 41  # with the round that warms up, and those back to back
    assert "more than without" in out


def test_copies_of_recordings_are_found_and_live_speech_is_not(recordings: Path, tmp_path: Path) -> None:
    figures, output = run("same_recording", f"{recordings} --most 1", tmp_path)
    for measure in ("sketch", "share"):
        found = figures["copies"][measure]
        assert [one["false_alarms"] for one in found["left_out"]] == [0, 0]
        assert found["found"]["as it is"] == found["found"]["6 dB quieter"] == 1.0
    assert figures["recent"]["false_alarms"] == 0
    assert figures["recent"]["found"] == figures["recent"]["copies"] > 0
    assert "as it is" in output
