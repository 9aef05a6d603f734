"""Worker processes: the results of this process, typed errors, and none that outlives its parent."""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from voices import SAMPLES, BandEncoder

from voiceprint import (
    ConfigurationError,
    EncoderError,
    InvalidArgumentError,
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    RowResult,
    VoiceFingerprintConfig,
)
from voiceprint._processes import WorkerProcesses, ask, serve
from voiceprint.encoder import TorchEncoder

# The parent of a worker that is busy for a minute; prints the worker's process id.
PARENT = f"""
import sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_worker_processes import busy
from voiceprint._processes import WorkerProcesses
workers = WorkerProcesses(1, busy)
print(workers.call(0), flush=True)
threading.Thread(target=workers.call, args=(60,), daemon=True).start()
time.sleep(60)
"""


def busy() -> Callable[[float], int]:
    """Sleeps, and gives the id of the process."""

    def work(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    return work


def doubler(step: int) -> Callable[[int], int]:
    if step < 0:
        raise ConfigurationError(f"step is {step}")

    def work(number: int) -> int:
        if number == 13:
            raise InvalidAudioError("thirteen")
        if number == 99:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 50:
            print("between the results")
            logging.getLogger("voiceprint.audio").warning("odd %s", "number")
        return step * number

    return work


def test_results_and_errors_come_back_and_a_stray_print_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with WorkerProcesses(2, doubler, 2) as workers, ThreadPoolExecutor(3) as threads:
        assert [*threads.map(workers.call, range(10))] == [*range(0, 20, 2)]
        with pytest.raises(InvalidAudioError, match="thirteen"):
            workers.call(13)
        assert [workers.call(50) for _ in range(3)] == [100] * 3
    assert caplog.record_tuples == [("voiceprint.audio", logging.WARNING, "odd number")] * 3


def test_a_fault_of_the_setup_is_raised_by_the_first_call() -> None:
    with WorkerProcesses(1, doubler, -1) as workers, pytest.raises(ConfigurationError, match="step is -1"):
        workers.call(1)


def test_a_worker_that_is_killed_is_an_error_and_so_is_one_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with WorkerProcesses(1, doubler, 2) as workers:
        for _ in range(2):
            with pytest.raises(EncoderError, match=r"ended by signal 9, perhaps for want of memory"):
                workers.call(99)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EncoderError, match="cannot be started"):
        WorkerProcesses(1, doubler, 2)


def asker() -> Callable[[int], int]:
    """Asks the parent for the double, twice."""
    return lambda number: ask(ask(number))


def test_a_worker_asks_its_parent() -> None:
    def double(number: int) -> int:
        if number == 13:
            raise InvalidAudioError("thirteen")
        return 2 * number

    with WorkerProcesses(2, asker, answer=double) as workers, ThreadPoolExecutor(3) as threads:
        assert [*threads.map(workers.call, range(5))] == [0, 4, 8, 12, 16]
        with pytest.raises(InvalidAudioError, match="thirteen"):
            workers.call(13)
        assert workers.call(3) == 12


def test_serving_ends_with_its_input() -> None:
    items, results = io.BytesIO(), io.BytesIO()
    for each in (doubler, (3,), 1, 13, 50):
        pickle.dump(each, items)
    items.seek(0)
    with pytest.raises(EOFError):
        serve(items, results)
    results.seek(0)
    answers = [pickle.load(results) for _ in range(3)]
    assert answers[0] == ([], False, 3)
    assert answers[1][1] is True
    assert isinstance(answers[1][2], InvalidAudioError)
    assert answers[2] == ([("voiceprint.audio", logging.WARNING, "odd number")], False, 150)
    assert logging.getLogger("voiceprint").handlers == []


def test_a_worker_ends_with_its_parent_in_the_middle_of_its_work() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.communicate()
    while True:  # ends with the time limit of the test, if the worker does not end before
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":  # ended, where nothing takes its exit code
            break
        time.sleep(0.01)


def manifest(folder: Path) -> Path:
    files = sorted(SAMPLES.glob("*/*.flac"))[:12]
    rows = [f"{file.parent.name},{file},0.6" for file in files]
    rows[3:3] = [f"zoe,{folder}/none.wav,", f"zoe,{files[0]},9", "zoe,x,y"]
    path = folder / "m.csv"
    path.write_text("\n".join(["caller_id,path,end", *rows]))
    return path


@pytest.mark.parametrize("on_device", [False, True], ids=["of the settings", "of the parent"])
def test_processes_give_the_voiceprints_of_threads_in_order(tmp_path: Path, on_device: bool) -> None:
    config = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0.0)
    encoder = TorchEncoder("cpu") if on_device else None
    found = []
    for processes in (0, 2):
        done: list[RowResult] = []
        with OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=encoder) as recognizer:
            recognizer.enroll_manifest(
                manifest(tmp_path),
                on_row=done.append,
                processes=processes,
                progress_path=tmp_path / f"{processes}.progress",
            )
            prints = recognizer.storage.get_all()
        assert [result.row.line for result in done] == [*range(2, 17)]
        rows = [(one.status, one.voiceprint_id, type(one.error), str(one.error)) for one in done]
        found.append((rows, [(one.caller_id, one.embedding.tolist()) for one in prints]))
    (threads_rows, threads_prints), (process_rows, process_prints) = found
    assert process_rows == threads_rows
    assert [name for name, _ in process_prints] == [name for name, _ in threads_prints]
    for (_, one), (_, other) in zip(process_prints, threads_prints, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_an_error_of_the_parents_device_is_that_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    encoder = TorchEncoder("cpu")
    monkeypatch.setattr(encoder._network.get(), "_embed", fail)
    config = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0.0)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=encoder)
    done: list[RowResult] = []
    recognizer.enroll_manifest(manifest(tmp_path), on_row=done.append, processes=1)
    failed = [str(result.error) for result in done if isinstance(result.error, EncoderError)]
    assert len(failed) == 12
    assert all("illegal memory access" in message for message in failed)
    assert recognizer.storage.count() == 0


def test_processes_need_the_encoder_of_the_settings(tmp_path: Path) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    with pytest.raises(InvalidArgumentError, match=r"Worker processes have the encoder of the settings"):
        recognizer.enroll_manifest(manifest(tmp_path), processes=2)
    for wrong in (-1, 257, 1.5, "2"):
        with pytest.raises(InvalidArgumentError, match=r"processes is .*: give 0 to 256, or None"):
            recognizer.enroll_manifest(manifest(tmp_path), processes=wrong)  # type: ignore[arg-type]
