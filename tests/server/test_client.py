"""The clients beyond the recognizer's verbs: access, repetitions, time limits, files, and privacy."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Running, serve
from voices import SAMPLES, BandEncoder, Voices, by_cosine

from voiceprint import (
    AudioQualityError,
    CallerNotFoundError,
    GalleryNotFoundError,
    InvalidArgumentError,
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    ServiceAccessError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    Voiceprint,
    VoiceprintError,
)
from voiceprint.client import AsyncClient, Client, correlated

FILE = SAMPLES / "amara" / "1.flac"


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url, server.key("admin")) as client:
        yield client
    storage = server.service.recognizer("default").storage
    for caller in [*storage.iter_callers()]:
        storage.delete(caller.caller_id)


# The verbs


def verbs_of(client: type) -> dict[str, Callable[..., Any]]:
    return {name: member for name, member in vars(client).items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_verbs_have_the_arguments_of_the_recognizer(kind: type) -> None:
    shared = [name for name in verbs_of(kind) if hasattr(OpusAgentVoiceRecognizer, name)]
    assert len(shared) > 25
    for name in set(shared) - {"close"}:
        ours, library = getattr(kind, name), getattr(OpusAgentVoiceRecognizer, name)
        parameters, expected = (inspect.signature(one).parameters for one in (ours, library))
        # `progress` is of the process that works.
        assert {name: (one.kind, one.default) for name, one in [*parameters.items()][1:]} == {
            name: (one.kind, one.default) for name, one in [*expected.items()][1:] if name != "progress"
        }, name
        assert ours.__doc__, name


def test_both_clients_have_the_same_verbs() -> None:
    assert verbs_of(Client).keys() - {"close"} == verbs_of(AsyncClient).keys() - {"aclose"}


def test_without_embeddings_a_voiceprint_has_an_empty_one(client: Client, voices: Voices) -> None:
    stored = client.enroll_caller("amara", voices["amara"][0])
    assert (stored.embedding.shape, stored.embedding.dtype) == ((0,), np.float32)
    with pytest.raises(InvalidArgumentError, match="0 values"):
        OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder()).identify(embedding=stored)


def test_metadata_is_empty_where_the_key_may_not_see_it(
    server: Running, client: Client, voices: Voices
) -> None:
    client.enroll_caller("amara", voices["amara"][0], {"name": "Amara"})
    with Client(server.url, server.key("identify")) as other:
        found = other.match_caller(voices["amara"][1])
        assert found is not None
        assert (found[0], found[2]) == ("amara", {})
        assert other.identify(voices["amara"][1])[0].metadata == {}


@pytest.mark.parametrize("audio", [FILE, Recording.open(FILE)], ids=["path", "recording"])
def test_a_file_is_enrolled_with_its_name_as_the_source(server: Running, client: Client, audio: Any) -> None:
    stored = client.enroll_caller("amara", audio)
    library = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    expected = library.enroll_caller("amara", Recording.open(FILE))
    there = server.service.recognizer("default").get_caller("amara")
    assert there is not None
    assert np.array_equal(there.voiceprints[0].embedding, expected.embedding)
    assert stored.provenance is not None
    assert stored.provenance.source == str(FILE)


def test_a_file_that_is_not_there_is_an_error_without_a_request(client: Client) -> None:
    with pytest.raises(InvalidAudioError, match=r"no-such\.wav cannot be read: No such file"):
        client.identify(Path("no-such.wav"))
    with pytest.raises(InvalidAudioError, match="load_audio"):
        client.identify("a.wav")  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", [None, 0, 1])
def test_channels_arrive_as_they_are_given(client: Client, voices: Voices, channel: int | None) -> None:
    first, second = (voices[name][0][:80_000] for name in ("amara", "bruno"))
    both = np.stack([first, second])
    interleaved = (both.T * 32_767).astype("<i2").tobytes()
    library = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    for audio, options in ((both, {}), (both.T, {}), (interleaved, {"channels": 2, "encoding": "pcm_s16le"})):
        there = client.check_enrollment(audio, channel=channel, **options)  # type: ignore[arg-type]
        assert there == library.check_enrollment(audio, channel=channel, **options)  # type: ignore[arg-type]


def test_a_caller_id_with_any_character_stays_itself(client: Client, voices: Voices) -> None:
    for caller_id in ("..", ".", "a/b", "a%2Fb", "ü?#&", "\n", "search"):
        client.enroll_caller(caller_id, voices["amara"][0])
        caller = client.get_caller(caller_id)
        assert caller is not None
        assert caller.caller_id == caller_id
        assert client.delete_caller(caller_id, receipt=True).complete
    assert client.get_caller("..") is None


def test_pages_are_read_to_their_end(server: Running, client: Client) -> None:
    names = [f"c{n:03}" for n in range(250)]
    server.service.recognizer("default").storage.save_many(
        Voiceprint(name, np.eye(32)[0] + 0.01, {"n": 1}, encoder="test-bands", groups=["all"])
        for name in names
    )
    assert [caller.caller_id for caller in client.callers()] == names
    assert [caller.caller_id for caller in client.members("all")] == names
    assert [caller.caller_id for caller in client.find_callers({"n": 1}, limit=230)] == names[:230]
    assert [caller.caller_id for caller in client.find_callers({"n": 1}, after="c240")] == names[241:]


def test_what_is_of_the_service_has_verbs_of_its_own(server: Running, client: Client) -> None:
    assert client.health()["status"] == "ready"
    assert client.galleries() == ["default", "other"]
    assert client.index_status() == server.service.recognizer("default").index_status()
    assert client.rebuild_index().vectors == 0
    assert client.with_gallery("other").check() == []
    assert client.threshold_advice() is None
    assert [space.encoder for space in client.spaces()] == ["test-bands"]


# Access and errors


def test_a_key_that_is_not_valid_is_a_typed_error(server: Running) -> None:
    with Client(server.url, "vp_no_key") as client, pytest.raises(ServiceAccessError) as caught:
        client.groups()
    assert (caught.value.status, caught.value.error) == (401, "NotAuthenticatedError")
    assert caught.value.request_id is not None
    assert caught.value.request_id in str(caught.value)
    with Client(server.url, server.key("identify")) as client:
        with pytest.raises(ServiceAccessError, match="role admin"):
            client.delete_caller("amara")
        with pytest.raises(GalleryNotFoundError):
            client.with_gallery("no-such").identify(FILE)


def test_errors_of_the_service_are_pickled_with_their_facts() -> None:
    error = ServiceBusyError("busy", status=429, error="BusyError", request_id="x", retry_after_s=2.0)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.__dict__) == ("busy", error.__dict__)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "voice.example"},
        {"url": "ftp://voice.example"},
        {"url": "https://user:word@voice.example"},
        {"url": 5},
        {"key": ""},
        {"key": "a\nb"},
        {"gallery": ""},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"retries": -1},
        {"retries": True},
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_wrong_arguments_are_refused_when_the_client_is_made(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        kind(**{"url": "https://voice.example", "key": "vp_secret", **arguments})
    assert "word" not in str(caught.value)


def test_no_repr_and_no_log_has_the_key_or_the_data(
    server: Running, caplog: pytest.LogCaptureFixture, voices: Voices
) -> None:
    key = server.key("admin")
    with caplog.at_level(logging.DEBUG), Client(server.url, key, embeddings=True) as client:
        stored = client.enroll_caller("hidden", voices["amara"][0], {"name": "Hunter"})
        client.find_callers({"name": "Hunter"})
        client.identify(embedding=stored)
        client.delete_caller("hidden")
        logging.getLogger().debug("%r %s", client, client)
    text = caplog.text + repr(vars(client))
    assert "Client('http://127.0.0.1" in text
    for secret in (key, key.split("_", 2)[2], "Hunter", f"{stored.embedding[0]:.6f}"[1:]):
        assert secret not in text


# Answers that are not of the service, by a plain server


def received(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    assert part, "the connection ended within a request"
    return part


class Plain:
    """A server that gives the answers of a list, one a request, and keeps the requests."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        """answers: whole responses; None ends the connection without one."""
        self.requests: list[bytes] = []
        self._answers = [*answers]
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self._answers.clear()
        with socket.create_connection(self._socket.getsockname()):
            pass  # wakes it
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if not self._answers:
                    return
                self.requests.append(self._read(connection))
                answer = self._answers.pop(0)
                if answer is not None:
                    connection.sendall(answer)

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        read = b""
        while b"\r\n\r\n" not in read:
            read += received(connection)
        head, _, body = read.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        while len(body) < length:
            body += received(connection)
        return head + b"\r\n\r\n" + body

    def header(self, number: int, name: str) -> str | None:
        """A header of a request."""
        for line in self.requests[number].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return None


Makes = Callable[..., Plain]


@pytest.fixture
def plain() -> Iterator[Makes]:
    """Makes `Plain` servers of their answers."""
    made: list[Plain] = []

    def make(*answers: bytes | None) -> Plain:
        made.append(Plain(answers))
        return made[-1]

    yield make
    for server in made:
        server.close()


def response(status: int, body: Any = b"", kind: str = "application/json", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    head += ["Connection: close", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def problem(status: int, error: str, **headers: str) -> bytes:
    document = {"error": error, "detail": "The detail.", "status": status, "request_id": "r-1"}
    return response(status, document, "application/problem+json", **headers)


GROUPS = response(200, {"groups": {"vip": 3}})


def asked(url: str, way: str, verb: str, *arguments: Any, **options: Any) -> Any:
    """The answer of a verb, by `Client` or by `AsyncClient`."""
    if way == "client":
        with Client(url, "vp_x", **options) as client:
            return getattr(client, verb)(*arguments)

    async def ask() -> Any:
        async with AsyncClient(url, "vp_x", **options) as client:
            return await getattr(client, verb)(*arguments)

    return asyncio.run(ask())


both = pytest.mark.parametrize("way", ["client", "async client"])


@both
@pytest.mark.parametrize(
    "first",
    [
        None,
        problem(429, "BusyError", Retry_After="0"),
        problem(503, "StorageUnavailableError"),
        response(502),
    ],
    ids=["no answer", "busy", "store", "proxy"],
)
def test_a_request_that_was_not_answered_is_repeated(way: str, first: bytes | None, plain: Makes) -> None:
    server = plain(first, first, GROUPS)
    assert asked(server.url, way, "groups") == {"vip": 3}
    assert len(server.requests) == 3


@both
def test_a_change_is_repeated_with_its_idempotency_key(way: str, plain: Makes) -> None:
    in_progress = problem(409, "InProgressError", Retry_After="1")
    server = plain(None, in_progress, response(200, {"voiceprints": 2}))
    assert asked(server.url, way, "delete_caller", "alice") == 2
    keys = {server.header(number, "Idempotency-Key") for number in range(3)}
    assert len(keys) == 1
    assert None not in keys
    # Another change has another key, and a read none.
    server = plain(response(200, {"voiceprints": 2}), GROUPS)
    asked(server.url, way, "delete_caller", "alice")
    asked(server.url, way, "groups")
    assert server.header(0, "Idempotency-Key") not in keys
    assert server.header(1, "Idempotency-Key") is None


@both
def test_the_repetitions_end(way: str, plain: Makes) -> None:
    server = plain(*[problem(429, "BusyError", Retry_After="0")] * 3)
    with pytest.raises(ServiceBusyError, match="The detail") as caught:
        asked(server.url, way, "groups", retries=2)
    assert len(server.requests) == 3
    assert (caught.value.status, caught.value.retry_after_s) == (429, 0.0)
    server = plain(None)
    with pytest.raises(ServiceUnavailableError, match=r"cannot be reached, or ended .* Tries: 1") as lost:
        asked(server.url, way, "groups", retries=0)
    assert isinstance(lost.value.__cause__, httpx.TransportError)
    server = plain(None)
    with pytest.raises(ServiceUnavailableError, match="the outcome of the change is unknown"):
        asked(server.url, way, "delete_caller", "alice", retries=0)


@both
def test_no_repetition_begins_after_the_time_limit(way: str, plain: Makes) -> None:
    server = plain(problem(503, "BusyError", Retry_After="60"))
    with pytest.raises(ServiceUnavailableError) as caught:
        asked(server.url, way, "groups", timeout_s=5)
    assert caught.value.retry_after_s == 60
    assert len(server.requests) == 1


@both
def test_a_service_that_does_not_answer_is_left_after_the_time_limit(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceUnavailableError, match=r"gave no answer within 0\.3 s"):
            asked(url, way, "groups", timeout_s=0.3)


@both
@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (response(200, b"<html>", "text/html"), ServiceError, "not understood"),
        (response(200, {"other": 1}), ServiceError, "not understood"),
        (response(200, [1]), ServiceError, "not understood"),
        (response(404, b"<html>", "text/html"), ServiceError, "is the URL that of a voiceprint service"),
        (response(301, Location="https://elsewhere.example/"), ServiceError, "redirects"),
        (response(403, b"", "text/html"), ServiceAccessError, "no problem"),
        (response(500, b"{", "application/problem+json"), ServiceError, "no problem"),
        (problem(418, "NewError"), ServiceError, r"NewError, request r-1"),
        (problem(422, "AudioQualityError"), ServiceError, "The detail"),  # without the quality
        (problem(404, "CallerNotFoundError"), CallerNotFoundError, "The detail"),
        (problem(422, "VoiceprintError"), VoiceprintError, "The detail"),
    ],
)
def test_every_answer_is_a_typed_error(
    plain: Makes, way: str, answer: bytes, kind: type, message: str
) -> None:
    server = plain(answer)
    with pytest.raises(kind, match=message) as caught:
        asked(server.url, way, "groups")
    assert type(caught.value) is kind
    assert len(server.requests) == 1


def test_a_closed_client_says_so(server: Running) -> None:
    client = Client(server.url, "vp_x")
    client.close()
    client.close()
    with pytest.raises(ServiceUnavailableError, match="closed"):
        client.groups()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    certificate, key = self_signed(tmp_path)
    galleries = {"default": OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())}
    from voiceprint.server import ServerSettings, Service

    service = Service(galleries, ServerSettings(state=str(tmp_path / "state.db")))
    with serve(service, ssl_certfile=certificate, ssl_keyfile=key) as running:
        url = running.url.replace("http:", "https:")
        api_key = running.key("admin")
        refused = "not trusted .*CERT.*verify=ssl.create_default_context"
        with Client(url, api_key) as client, pytest.raises(ServiceUnavailableError, match=refused):
            client.groups()
        trust = ssl.create_default_context(cafile=str(certificate))
        with Client(url, api_key, verify=trust) as client:
            assert client.groups() == {}


def self_signed(folder: Path) -> tuple[Path, Path]:
    """The paths of a new certificate for 127.0.0.1, and of its key."""
    import ipaddress
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


# Many at once


def test_threads_share_a_client(client: Client, voices: Voices) -> None:
    for name in ("amara", "bruno", "carlo"):
        client.enroll_caller(name, voices[name][0])
    probes = [(name, voices[name][n]) for name in ("amara", "bruno", "carlo") for n in (1, 2, 3)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda probe: client.identify(probe[1])[0].caller_id, probes * 3))
    assert found == [name for name, _ in probes] * 3


def test_a_forked_process_has_connections_of_its_own(server: Running, client: Client) -> None:
    assert client.groups() == {}
    before = client._http.get()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # no test code may run on in the child
        try:
            os.write(writer, b"own" if client._http.get() is not before and client.groups() == {} else b"bad")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"own"
    os.waitpid(child, 0)
    assert client._http.get() is before


def test_the_correlation_id_is_that_of_the_request(server: Running, client: Client) -> None:
    log = server.service.recognizer("default").audit_log()
    assert log is not None
    with correlated("call-17"):
        client.identify(FILE)
    assert b'"correlation_id":"call-17"' in next(log.backward())
    client.identify(FILE)
    assert b"call-17" not in next(log.backward())
    with pytest.raises(InvalidArgumentError, match="correlation_id is 'a b'"), correlated("a b"):
        pass


# The install


def test_the_client_needs_neither_index_nor_network(plain: Makes) -> None:
    """Imports, and asks, without the packages that only the library and the service need."""
    absent = ("alembic", "faiss", "fastapi", "onnxruntime", "redis", "resemblyzer", "scipy", "soundfile",
              "soxr", "sqlalchemy", "typer", "uvicorn", "webrtcvad")  # fmt: skip
    server = plain(GROUPS, problem(404, "CallerNotFoundError"))
    program = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
import numpy as np
from voiceprint.client import Client
from voiceprint import CallerNotFoundError
with Client({server.url!r}, "vp_x") as client:
    print(client.groups())
    try:
        client.verify_caller("alice", np.zeros(8000, np.int16), sample_rate=8000)
    except CallerNotFoundError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "{'vip': 3}\nThe detail.\n", done.stderr


def test_without_httpx_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['httpx'] = None; import voiceprint.client"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "opusagent-voiceprint[client]" in done.stderr.splitlines()[-1]


def test_poor_audio_comes_with_its_quality(client: Client) -> None:
    library = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    silence = np.zeros(80_000, np.int16)
    with pytest.raises(AudioQualityError) as expected:
        library.enroll_caller("a", silence)
    with pytest.raises(AudioQualityError) as caught:
        client.enroll_caller("a", silence)
    assert str(caught.value) == str(expected.value)
    assert caught.value.quality == expected.value.quality
