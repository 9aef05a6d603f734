"""Nothing is sent but to the store, and nothing written but the store, its index and what was asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import field_files
import pytest
from redis_server import fresh_database, shared_server
from tiny_models import write_tiny_model
from voices import SAMPLES
from watched import Watched, watched

pytestmark = pytest.mark.slow

VOICEPRINT = Path(sys.executable).with_name("voiceprint")
# Enrolls, matches and streams, and leaves a snapshot of the index.
USE = """
import sys
from voiceprint import OpusAgentVoiceRecognizer, load_audio, open_storage
audios = [load_audio(f"{sys.argv[2]}/amara/{n}.flac") for n in (1, 2, 3)]
with OpusAgentVoiceRecognizer(open_storage(sys.argv[1])) as recognizer:
    recognizer.warm_up()
    recognizer.enroll_caller("amara", audios[0][0], {"plan": "gold"}, sample_rate=audios[0][1])
    assert recognizer.match_caller(audios[1][0], sample_rate=audios[1][1])[0] == "amara"
    with recognizer.stream(sample_rate=audios[2][1]) as session:
        session.feed(audios[2][0])
        assert session.result().caller_id == "amara"
    assert recognizer.check() == []
    recognizer.rebuild_index()
"""


def use(folder: Path, store: str, **environment: str) -> Watched:
    return watched(folder, sys.executable, "-c", USE, store, SAMPLES, **environment)


def outside(seen: Watched, *folders: Path) -> list[str]:
    """The files that were made outside of these folders, /dev apart."""
    inside = ("/dev/", *(f"{folder}/" for folder in folders))
    return sorted(path for path in seen.created if not path.startswith(inside))


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_enrolling_matching_and_streaming_open_no_socket_and_write_the_store_and_its_index_alone(
    tmp_path: Path, kind: str
) -> None:
    seen = use(tmp_path, f"{kind}:callers")
    assert seen.network == []
    assert (seen.home, seen.temporary, seen.complained) == (set(), set(), "")
    assert outside(seen, tmp_path / "work", tmp_path / "temporary") == []
    left = {path.name for path in (tmp_path / "work").iterdir()}
    assert left == {"callers", "callers.lock", "callers.index"}


def test_with_redis_there_is_no_connection_but_to_the_server(tmp_path: Path) -> None:
    server, database = shared_server(), fresh_database()
    seen = use(tmp_path, f"unix://{server.path}?db={database}")
    assert seen.network
    assert all("AF_UNIX" in call for call in seen.network)
    assert {str(server.path) in call for call in seen.network if call.startswith("connect")} == {True}
    (index,) = (tmp_path / "home/.cache/opusagent-voiceprint").iterdir()
    assert index.suffix == ".index"
    assert seen.home == {".cache", ".cache/opusagent-voiceprint", f".cache/opusagent-voiceprint/{index.name}"}
    assert (seen.temporary, seen.complained) == (set(), "")
    assert list((tmp_path / "work").iterdir()) == []


def test_the_reference_encoder_opens_no_socket_either(tmp_path: Path) -> None:
    seen = use(tmp_path, "json:callers", VOICE_ENCODER="resemblyzer")
    assert seen.network == []
    assert (seen.home, seen.temporary) == (set(), set())
    compiled = [path for path in outside(seen, tmp_path) if "__pycache__" not in path]  # librosa's, by numba
    assert compiled == []


@pytest.mark.parametrize("program", ["sherpa", "onnx"])
def test_speaker_models_open_no_socket_and_write_nothing(tmp_path: Path, program: str) -> None:
    model = write_tiny_model(tmp_path / "model.onnx", 192)
    settings = {"VOICE_ENCODER": f"{program}:{model}", "VOICE_SIMILARITY_THRESHOLD": "0.8"}
    seen = use(tmp_path, "json:callers", **settings)
    assert seen.network == []
    assert (seen.home, seen.temporary, seen.complained) == (set(), set(), "")
    assert outside(seen, tmp_path / "work", tmp_path / "temporary") == []


def test_evaluating_opens_no_socket_and_keeps_nothing_where_that_is_wanted(tmp_path: Path) -> None:
    seen = watched(tmp_path, VOICEPRINT, "evaluate", SAMPLES, "--no-cache", "--splits", 2)
    assert seen.network == []
    assert (seen.home, seen.temporary) == (set(), set())
    assert outside(seen, tmp_path / "temporary") == []


def test_evaluating_keeps_embeddings_and_matplotlib_its_fonts_where_the_user_keeps_such(
    tmp_path: Path,
) -> None:
    seen = watched(tmp_path, VOICEPRINT, "evaluate", SAMPLES, "--splits", 2, "--output", "report")
    assert seen.network == []
    assert seen.temporary == set()
    kept = {path for path in seen.home if path.count("/") == 1}
    assert kept == {".cache/opusagent-voiceprint", ".cache/matplotlib", ".config/matplotlib"}
    assert outside(seen, tmp_path) == []


def test_the_demonstration_opens_no_socket_and_leaves_nothing(tmp_path: Path) -> None:
    seen = watched(tmp_path, VOICEPRINT, "demo", "--voices", SAMPLES)
    assert seen.network == []
    assert (seen.home, seen.temporary, seen.complained) == (set(), set(), "")
    assert outside(seen, tmp_path / "temporary") == []
    assert list((tmp_path / "work").iterdir()) == []


SERVE = """
import contextlib, fcntl, http.client, signal, socket, struct, subprocess, sys, time
with socket.socket() as any_socket, contextlib.suppress(PermissionError):
    # Loopback is down in a new network namespace: SIOCSIFFLAGS, IFF_UP and IFF_RUNNING.
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
command, sample, more = sys.argv[1], open(sys.argv[2], "rb").read(), sys.argv[3:]
made = subprocess.run([command, "keys", "create", "--role", "admin"], capture_output=True, check=True)
headers = {"X-API-Key": made.stdout.split()[-1].decode()}
server = subprocess.Popen([command, "serve", "--port", "8765", *more], stderr=subprocess.DEVNULL)

def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", 8765, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status

for _ in range(600):
    try:
        if ask("GET", "/readyz") == 200:
            break
    except OSError:
        time.sleep(0.1)
gallery = "/v1/galleries/default"
assert ask("POST", f"{gallery}/callers/amara/voiceprints", sample) == 201
assert ask("POST", f"{gallery}/identify", sample) == 200
# Large enough that the parser of forms would put it into a file.
form = b'--x\\r\\nContent-Disposition: form-data; name="audio"; filename="a.flac"\\r\\n\\r\\n'
headers["Content-Type"] = "multipart/form-data; boundary=x"
form += sample + bytes(3_000_000) + b"\\r\\n--x--\\r\\n"
assert ask("POST", f"{gallery}/identify", form) in (200, 422)
assert ask("GET", "/metrics") == 200
server.send_signal(signal.SIGTERM)
server.wait(60)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_connects_to_nothing_and_writes_the_store_its_index_and_its_state_alone(
    tmp_path: Path, workers: str
) -> None:
    more = ("--workers", workers)
    seen = watched(tmp_path, sys.executable, "-c", SERVE, VOICEPRINT, SAMPLES / "amara/1.flac", *more)
    connected = [call for call in seen.network if call.startswith("connect")]
    assert connected
    assert all("sin_port=htons(8765)" in call for call in connected)
    assert (seen.home, seen.temporary, seen.complained) == (set(), set(), "")
    left = {path.name for path in (tmp_path / "work").iterdir()}
    assert left == {
        "voiceprints.json",
        "voiceprints.json.lock",
        "voiceprints.json.index",
        "voiceprint-server.db",
    }
    # Metrics of several workers, and the files by which `tempfile` finds out where it may write.
    made = {path for path in seen.created if path.startswith(f"{tmp_path}/temporary/")}
    made -= {path for path in made if re.search("/temporary/([a-z0-9_]{8}|voiceprint-metrics-.*)$", path)}
    assert made == set()
    assert outside(seen, tmp_path) == []


def test_other_formats_are_read_without_a_socket_and_without_a_file_beside_them(tmp_path: Path) -> None:
    pytest.importorskip("av")
    made = {
        "a.m4a": field_files.encoded("ipod", "aac", 16_000),
        "a.webm": field_files.encoded("webm", "libopus", 48_000),
        "a.amr": field_files.encoded("amr", "amr_nb"),
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    code = "import sys, voiceprint; [voiceprint.load_audio(path) for path in sys.argv[1:]]"
    seen = watched(tmp_path / "seen", sys.executable, "-c", code, *(tmp_path / name for name in made))
    assert seen.network == []
    assert (seen.home, seen.temporary) == (set(), set())
    assert outside(seen, tmp_path / "seen/temporary") == []


def test_onnxruntime_imported_after_voiceprint_reports_and_writes_nothing(tmp_path: Path) -> None:
    seen = watched(tmp_path, sys.executable, "-c", "import voiceprint, onnxruntime")
    assert (seen.network, seen.home, seen.temporary, seen.complained) == ([], set(), set(), "")


def test_onnxruntime_imported_before_is_switched_off_and_what_could_not_be_undone_is_told(
    tmp_path: Path,
) -> None:
    # It reports from a test: to nowhere, also where there is a network.
    nowhere = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    seen = watched(tmp_path, sys.executable, "-c", "import onnxruntime, voiceprint", **nowhere)
    assert "imported before voiceprint" in seen.complained
    assert "ORT_DISABLE_TELEMETRY=1" in seen.complained
    shown = watched(
        tmp_path / "told", sys.executable, "-c", "import onnxruntime, voiceprint", ORT_DISABLE_TELEMETRY="1"
    )
    assert (shown.network, shown.home, shown.temporary, shown.complained) == ([], set(), set(), "")


@pytest.mark.parametrize(("given", "there"), [(None, "1"), ("", "1"), ("1", "1"), ("0", "0")])
def test_what_the_user_set_for_the_telemetry_of_onnxruntime_stands(given: str | None, there: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    script = "import os, voiceprint; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (there, "")
