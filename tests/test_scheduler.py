"""Enrollment by the workers of a dask scheduler: the results of this process, and none lost or twice."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from dask_cluster import cluster, process_ids
from distributed import LocalCluster
from voices import SAMPLES, BandEncoder

from voiceprint import (
    ConfigurationError,
    EncoderError,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    RowResult,
    VoiceFingerprintConfig,
    _scheduler,
    read_manifest,
)
from voiceprint.enrollment import bulk

# dask closes the event loop of its client a moment after the client.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


QUICK = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0.0, enroll_simulated_lines=False)


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalCluster]:
    with cluster() as made:
        yield made


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("voices").symlink_to(SAMPLES)


def write(rows: list[str], header: str = "caller_id,path,end,metadata.note") -> Path:
    Path("m.csv").write_text("\n".join([header, *rows]) + "\n")
    return Path("m.csv")


def manifest() -> Path:
    files = [file.relative_to(SAMPLES) for file in sorted(SAMPLES.glob("*/*.flac"))[:12]]
    rows = [f"caller {number},voices/{file},0.6,secret {number}" for number, file in enumerate(files)]
    rows[3:3] = ["zoe,none.wav,,", f"zoe,voices/{files[0]},9,", "zoe,x,y,"]
    return write(rows)


def test_the_workers_of_a_scheduler_give_the_results_of_this_process(workers: LocalCluster) -> None:
    config = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0.0)
    found = []
    for scheduler in (None, workers.scheduler_address):
        done: list[RowResult] = []
        with OpusAgentVoiceRecognizer(MemoryStorage(), config=config) as recognizer:
            recognizer.enroll_manifest(
                manifest(),
                on_row=done.append,
                processes=0 if scheduler is None else None,
                scheduler=scheduler,
                progress_path=f"{scheduler is None}.progress",
            )
            callers = [*recognizer.storage.iter_callers()]
        rows = [
            (one.row._replace(error=None), one.status, one.voiceprint_id, type(one.error)) for one in done
        ]
        prints = [one for caller in callers for one in caller.voiceprints]
        found.append((rows, [(one.caller_id, one.metadata, one.provenance) for one in prints]))
        found.append([one.embedding.tolist() for one in prints])
    (rows, prints), embeddings, (their_rows, their_prints), their_embeddings = found
    assert their_rows == rows
    assert [status for _, status, *_ in rows].count("enrolled") == 12
    assert their_prints == prints
    for one, other in zip(embeddings, their_embeddings, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_no_caller_metadata_or_secret_is_sent_to_a_worker() -> None:
    (row,) = read_manifest(write([f"Alice A.,voices/amara/1.flac,,top secret {9}"]))
    sent = pickle.dumps(bulk._sent(row))
    assert b"voices/amara/1.flac" in sent
    assert b"Alice" not in sent
    assert b"secret" not in sent
    config = VoiceFingerprintConfig(encryption_key="k" * 43, redis_url="redis://:word@host:1/0")
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    settings = recognizer._built.enroller.process_settings()
    assert settings is not None
    assert settings["encoder"] == "onnx"
    assert not {"encryption_key", "encryption_keys", "redis_url", "database_url"} & settings.keys()


def test_the_command_reports_goes_on_and_checks_as_without_a_scheduler(run, workers: LocalCluster) -> None:
    write(["amara,voices/amara/1.flac,,", "zoe,none.wav,,", ",voices/amara/2.flac,,"])
    with_workers = ("enroll-csv", "m.csv", "--scheduler", workers.scheduler_address, "--report", "out.csv")
    code, out, err = run(*with_workers, "--dry-run")
    assert (code, err) == (1, "")
    assert "3 rows checked, 2 with errors; nothing is enrolled." in out
    assert not Path("voiceprints.json").exists()
    for statuses in (["enrolled", "failed", "failed"], ["done_before", "failed", "failed"]):
        code, out, err = run(*with_workers, "--json")
        assert (code, err) == (1, "")
        assert [row["status"] for row in json.loads(out)] == statuses
        with Path("out.csv").open(newline="") as file:
            report = [*csv.DictReader(file)]
        assert [row["status"] for row in report] == statuses
        assert [row["error"] for row in report] == ["", "InvalidAudioError", "InvalidArgumentError"]


def test_a_scheduler_that_cannot_be_used_is_a_typed_error(run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(["amara,voices/amara/1.flac,,"])
    for options, words in (
        (["10.0.0.5:8786"], "scheduler is '10.0.0.5:8786': give the address that the scheduler prints"),
        (["tcp://127.0.0.1:1", "--processes", "2"], "both processes and a scheduler"),
        (["tcp://127.0.0.1:1"], "The scheduler tcp://127.0.0.1:1 cannot be reached (OSError: Timed out"),
    ):
        monkeypatch.setattr(_scheduler, "_CONNECT_S", 0.2)
        code, out, err = run("enroll-csv", "m.csv", "--scheduler", *options)
        assert (code, out) == (2, "")
        assert words in err
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    with pytest.raises(InvalidArgumentError, match="Worker processes have the encoder of the settings"):
        recognizer.enroll_manifest("m.csv", scheduler="tcp://127.0.0.1:1")


def test_a_scheduler_without_workers_and_one_with_other_workers_are_errors(
    workers: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scheduler, "_WORKERS_S", 0.1)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    write(["amara,voices/amara/1.flac,,"])
    words = "has no workers: start some by `dask worker .* --memory-limit 0`"  # others are refused, see below
    with cluster(0) as empty, pytest.raises(EncoderError, match=words):
        recognizer.enroll_manifest("m.csv", scheduler=empty.scheduler_address)
    monkeypatch.setattr("voiceprint.__version__", "0.0")
    with pytest.raises(ConfigurationError, match=r"A worker has opusagent-voiceprint .* this process 0\.0"):
        recognizer.enroll_manifest("m.csv", scheduler=workers.scheduler_address)
    assert recognizer.storage.count() == 0


def test_a_worker_that_may_write_embeddings_to_its_disk_is_refused() -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    write(["amara,voices/amara/1.flac,,"])
    with (
        cluster(1, memory_limit="1GiB") as spilling,
        pytest.raises(ConfigurationError, match="may write embeddings to its disk: start all workers with"),
    ):
        recognizer.enroll_manifest("m.csv", scheduler=spilling.scheduler_address)
    assert recognizer.storage.count() == 0


@pytest.mark.slow
def test_killed_workers_lose_no_row_and_enroll_none_twice() -> None:
    files = [file.relative_to(SAMPLES) for file in sorted(SAMPLES.glob("*/*.flac"))]
    count = 96
    rows = []
    for number in range(count):
        start = 0.02 * (number // len(files))
        rows.append(f"caller {number:04},voices/{files[number % len(files)]},{start:.2f},{start + 1.5:.2f}")
    write(rows, "caller_id,path,start,end")
    done: list[RowResult] = []
    killed: list[int] = []
    with cluster() as made, OpusAgentVoiceRecognizer(MemoryStorage(), config=QUICK) as recognizer:

        def taken(row: RowResult) -> None:
            done.append(row)
            if len(done) == 1:  # as the first rows are stored: the tasks of the next ones are in flight
                for process in process_ids(made):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

        counts = recognizer.enroll_manifest("m.csv", on_row=taken, scheduler=made.scheduler_address)
        callers = [*recognizer.storage.iter_callers()]
    assert len(set(killed)) == 2
    assert counts == {"enrolled": count}
    assert [row.row.line for row in done] == [*range(2, count + 2)]
    assert [caller.caller_id for caller in callers] == [f"caller {number:04}" for number in range(count)]
    # None was stored and replaced meanwhile, as ids are not used again.
    assert sorted(one.id or 0 for caller in callers for one in caller.voiceprints) == [*range(1, count + 1)]


@pytest.mark.slow
def test_a_scheduler_that_ends_midway_is_an_error_after_which_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [file.relative_to(SAMPLES) for file in sorted(SAMPLES.glob("*/*.flac"))]
    write([f"caller {number},voices/{files[number % len(files)]},1.5," for number in range(90)])
    done: list[RowResult] = []
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=QUICK) as recognizer:
        with cluster() as made, dask.config.set({"distributed.comm.timeouts.connect": "1s"}):

            def taken(row: RowResult) -> None:
                done.append(row)
                if len(done) == 1:
                    made.close()

            with pytest.raises(EncoderError, match=r"was lost: start it again|no workers"):
                recognizer.enroll_manifest("m.csv", on_row=taken, scheduler=made.scheduler_address)
        stored = recognizer.storage.count()
        assert 64 <= stored < 90
        with cluster() as again:
            counts = recognizer.enroll_manifest("m.csv", scheduler=again.scheduler_address)
        assert counts["done_before"] == stored
        assert recognizer.storage.count() == 90
