"""The default encoder at work: batches, threads, forks, long calls, and what a process pays for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import in_child, python
from voices import RATE, SAMPLES, Voices

from voiceprint import EncoderError, MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint._lazy import Lazy, cached_property
from voiceprint.encoder import OnnxEncoder, ResemblyzerEncoder, default_encoder
from voiceprint.encoder.workers import Workers, cores

HEAVY = ("alembic", "librosa", "numba", "resemblyzer", "scipy", "sqlalchemy", "torch")


# Batches


def test_a_batch_gives_what_each_gives_alone(voices: Voices) -> None:
    audios = [audios[0] for audios in voices.values()]
    audios += [np.tile(audios[0], 4), audios[1][:RATE], audios[2][: 3 * RATE]]
    for threads in (1, 3):
        encoder = OnnxEncoder(threads)
        batch = encoder.embed_batch(audios)
        assert (batch.shape, batch.dtype) == ((len(audios), 256), np.float32)
        alone = np.stack([encoder.embed(audio) for audio in audios])
        np.testing.assert_allclose(batch, alone, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-6)


def test_an_empty_batch_is_a_matrix_without_rows() -> None:
    for encoder in (OnnxEncoder(), ResemblyzerEncoder()):
        batch = encoder.embed_batch([])
        assert (batch.shape, batch.dtype) == ((0, 256), np.float32)


def test_silence_in_a_batch_is_an_error(voices: Voices) -> None:
    audios = [voices["amara"][0], np.zeros(5 * RATE, np.float32), voices["bruno"][0]]
    for threads in (1, 2):
        with pytest.raises(EncoderError, match="no speech"):
            OnnxEncoder(threads).embed_batch(audios)


# Threads


def test_many_threads_get_the_same_answers(voices: Voices) -> None:
    audios = [audios[0] for audios in voices.values()]
    encoder = OnnxEncoder(2)
    expected = [encoder.embed(audio) for audio in audios]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for embedding, other in zip(pool.map(encoder.embed, audios), expected, strict=True):
                np.testing.assert_allclose(embedding, other, atol=1e-6)


def test_no_more_tasks_run_at_once_than_there_are_threads_and_callers() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    workers = Workers(3)
    workers.run([task] * 12)
    assert most <= 3
    with ThreadPoolExecutor(4) as callers:
        for done in [callers.submit(workers.run, [task] * 6) for _ in range(4)]:
            done.result()
    assert most <= 3 + 3


def test_the_results_of_tasks_come_in_order_and_the_first_error_comes_out() -> None:
    def fail() -> int:
        raise KeyError("third")

    for threads in (1, 2, 4):
        workers = Workers(threads)
        assert workers.run([lambda n=n: n for n in range(9)]) == list(range(9))
        with pytest.raises(KeyError, match="third"):
            workers.run([lambda: 1, lambda: 2, fail, lambda: 4])
    assert Workers(0).threads == cores() >= 1


def test_the_network_is_loaded_once_whoever_asks() -> None:
    loads: list[int] = []

    def load() -> str:
        loads.append(1)
        time.sleep(0.05)
        return "network"

    loaded = Lazy(load, inherited=False)
    with ThreadPoolExecutor(8) as pool:
        assert {pool.submit(loaded.get).result() for _ in range(16)} == {"network"}
    assert len(loads) == 1


@pytest.mark.resemblyzer
def test_the_settings_choose_the_encoder_which_recognizers_share() -> None:
    def encoder(**settings: object) -> object:
        config = VoiceFingerprintConfig(**settings)
        return OpusAgentVoiceRecognizer(MemoryStorage(), config=config).encoder

    assert isinstance(encoder(), OnnxEncoder)
    assert encoder() is encoder() is default_encoder()
    assert isinstance(encoder(encoder="resemblyzer"), ResemblyzerEncoder)
    assert encoder(encoder="resemblyzer") is encoder(encoder="resemblyzer")
    one, two = encoder(encoder_threads=1), encoder(encoder_threads=2)
    assert one is not two
    assert OnnxEncoder(1)._network is OnnxEncoder(2)._network  # the network is one all the same


# Forks


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_embeds_while_the_parents_threads_do(voices: Voices) -> None:
    audio = voices["amara"][0]
    encoder = OnnxEncoder(2)
    expected = encoder.embed(audio)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            encoder.embed(audio)

    def child() -> None:
        np.testing.assert_allclose(encoder.embed(audio), expected, atol=1e-6)
        np.testing.assert_allclose(encoder.embed_batch([audio] * 3)[2], expected, atol=1e-6)

    busy = [threading.Thread(target=work) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(5):
            in_child(child)
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    np.testing.assert_allclose(encoder.embed(audio), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_property_that_a_thread_computes() -> None:
    begun, end = threading.Event(), threading.Event()

    class Slow:
        @cached_property
        def value(self) -> int:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                end.wait(60)
            return 7

    def child() -> None:
        assert Slow().value == 7

    one, other = Slow(), Slow()
    thread = threading.Thread(target=lambda: one.value)
    thread.start()
    try:
        assert begun.wait(60)
        in_child(child)
        assert other.value == 7  # nor does another instance in the same process
    finally:
        end.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_embeds_after_resemblyzer_has_in_the_parent(voices: Voices) -> None:
    audio = voices["amara"][0]
    expected = ResemblyzerEncoder().embed(np.tile(audio, 4))  # long enough that torch starts its threads

    def child() -> None:
        for threads in (1, 2):
            encoder = OnnxEncoder(threads)
            assert float(encoder.embed(audio) @ expected) > 0.99
            assert float(encoder.embed_batch([audio] * 3)[2] @ expected) > 0.99

    in_child(child)
    in_child(child)


FORK_WHILE_LOADING = f"""
import os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
import voiceprint
from voiceprint.encoder import default_encoder
audio, _ = voiceprint.load_audio({str(SAMPLES / "amara" / "1.flac")!r})
encoder = default_encoder(sys.argv[1])
loader = threading.Thread(target=encoder.warm_up)
loader.start()
time.sleep(float(sys.argv[2]))
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if encoder.embed(audio).shape == (256,) else 1)
print(os.waitpid(child, 0)[1])
loader.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "resemblyzer"])
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_fork_while_another_thread_loads_the_encoder_does_not_hang(kind: str, delay: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK_WHILE_LOADING, kind, str(delay)],
        capture_output=True, text=True, check=False, timeout=40, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


# What it costs

COLD = f"""
import json, re, sys
from pathlib import Path
import voiceprint
audio, rate = voiceprint.load_audio({str(SAMPLES / "amara" / "1.flac")!r})
voiceprint.OpusAgentVoiceRecognizer(voiceprint.MemoryStorage()).get_embedding(audio[:5 * rate])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps({{"mb": int(peak) / 1024, "heavy": [name for name in {HEAVY} if name in sys.modules]}}))
"""


def test_the_first_embedding_loads_neither_torch_nor_much_else() -> None:
    cost = json.loads(python(COLD))
    assert cost["heavy"] == []
    assert cost["mb"] < 200


LONG = f"""
import re
from pathlib import Path
import numpy as np, voiceprint
from voiceprint.encoder import OnnxEncoder

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

audio, rate = voiceprint.load_audio({str(SAMPLES / "amara" / "1.flac")!r})
encoder = OnnxEncoder(2)
short = encoder.embed(np.tile(audio, 12))
some = np.pad(audio, (0, 6 * len(audio)))  # pauses, so that the test does not take as long as the memory
hour = np.tile(some, 3600 * rate // len(some) + 1)[:3600 * rate]
idle = peak()
long = encoder.embed(hour)
print(peak() - idle, float(short @ long), np.linalg.norm(long))
"""


@pytest.mark.slow
def test_an_hour_takes_little_memory_and_is_embedded_as_a_whole() -> None:
    growth, likeness, norm = map(float, python(LONG).split())
    assert growth < 200
    assert likeness > 0.995  # the same words again and again
    assert norm == pytest.approx(1, abs=1e-6)


def test_a_long_recording_has_the_embedding_of_all_its_partials(voices: Voices) -> None:
    audio = np.concatenate([audios[0] for audios in voices.values()])
    assert len(audio) > 50 * RATE
    expected = ResemblyzerEncoder().embed(audio)
    assert float(OnnxEncoder(2).embed(audio) @ expected) > 0.99999


@pytest.mark.resemblyzer
def test_warming_up_loads_all_that_an_embedding_needs() -> None:
    code = f"""
import sys, voiceprint
audio, rate = voiceprint.load_audio({str(SAMPLES / "amara" / "1.flac")!r})
recognizer = voiceprint.OpusAgentVoiceRecognizer(voiceprint.MemoryStorage())
recognizer.warm_up()
before = set(sys.modules)
recognizer.match_caller(audio)
print(sorted(name for name in set(sys.modules) - before if "." not in name))
"""
    assert python(code) == "[]\n"


# Errors


def test_without_onnx_runtime_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(OnnxEncoder, "_network", Lazy(OnnxEncoder._network._load, inherited=False))
    with pytest.raises(EncoderError, match=r"pip install onnxruntime.*VOICE_ENCODER=resemblyzer"):
        OnnxEncoder().warm_up()
    monkeypatch.undo()
    OnnxEncoder().warm_up()


def test_audio_that_is_not_finite_gives_no_embedding(voices: Voices) -> None:
    audio = voices["amara"][0].copy()
    audio[40_000] = np.nan
    with pytest.raises(EncoderError):
        OnnxEncoder().embed(audio)
