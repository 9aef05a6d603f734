"""Keys, problem documents, bodies and the core routes of the service."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import httpx
import pytest
from serving import Running
from voices import SAMPLES

from voiceprint import Recording
from voiceprint.errors import ConfigurationError
from voiceprint.server import ServerSettings

FIRST, SECOND = (SAMPLES / "amara" / name for name in ("1.flac", "2.flac"))


def test_a_voice_is_enrolled_and_identified_over_http(http: httpx.Client) -> None:
    enrolled = http.post(
        "callers/amara/voiceprints",
        files={"audio": FIRST.read_bytes()},
        data={
            "metadata": '{"name": "Amara"}',
            "source": "1.flac",
        },
    )
    assert enrolled.status_code == 201
    stored = enrolled.json()
    assert (stored["caller_id"], stored["encoder"], stored["provenance"]["source"]) == (
        "amara",
        "test-bands",
        "1.flac",
    )
    assert (stored["embedding"], stored["augmented_embedding"]) == (None, None)
    assert stored["provenance"]["fingerprints"] is None
    answer = http.post("identify", content=SECOND.read_bytes(), headers={"Content-Type": "audio/flac"}).json()
    assert (answer["verdict"], answer["caller_id"]) == ("accepted", "amara")
    assert answer["matches"][0]["metadata"] == {"name": "Amara"}
    claim = http.post("callers/amara/verify", files={"audio": SECOND.read_bytes()}).json()
    assert (claim["verdict"], claim["accepted"]) == ("accepted", True)


def test_metadata_is_in_the_answers_of_keys_that_may_see_it_alone(
    server: Running, http: httpx.Client
) -> None:
    http.post(
        "callers/amara/voiceprints",
        files={"audio": FIRST.read_bytes()},
        data={"metadata": '{"name": "Amara"}'},
    )
    url = f"{server.url}/v1/galleries/default/identify"
    for options, sees in ({}, False), ({"metadata": True}, True):
        headers = server.headers("identify", **options)
        answer = httpx.post(url, content=SECOND.read_bytes(), headers=headers, timeout=60).json()
        assert (answer["matches"][0]["metadata"] is not None) == sees


def test_embeddings_are_in_the_answers_of_admins_that_ask_for_them(server: Running) -> None:
    url = f"{server.url}/v1/galleries/default/callers/nia/voiceprints?embeddings=true"
    refused = httpx.post(url, content=FIRST.read_bytes(), headers=server.headers("enroll"))
    assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowedError")
    answer = httpx.post(url, content=FIRST.read_bytes(), headers=server.headers("admin"), timeout=60).json()
    (print_,) = server.service.recognizer("default").get_caller("nia").voiceprints  # type: ignore[union-attr]
    assert answer["embedding"] == print_.embedding.tolist()
    assert answer["provenance"]["fingerprints"] == print_.provenance.fingerprints  # type: ignore[union-attr]
    assert answer["revision"] == print_.revision
    server.service.recognizer("default").delete_caller("nia")


def test_a_list_of_a_form_that_is_no_json_is_answered_with_an_example(http: httpx.Client) -> None:
    answer = http.post("match", files={"audio": SECOND.read_bytes()}, data={"candidates": "amara"})
    assert answer.status_code == 422
    assert "`candidates` is not valid JSON" in answer.json()["detail"]
    assert '["amara", "bruno"]' in answer.json()["detail"]


def test_a_match_names_the_caller_and_notes_the_time(server: Running, http: httpx.Client) -> None:
    recognizer = server.service.recognizer("default")
    recognizer.enroll_caller("amara", Recording.open(FIRST), {"name": "Amara"})
    before = recognizer.get_caller("amara").last_seen  # type: ignore[union-attr]
    answer = http.post("match", content=SECOND.read_bytes()).json()
    assert (answer["caller_id"], answer["metadata"]) == ("amara", {"name": "Amara"})
    assert recognizer.get_caller("amara").last_seen > before  # type: ignore[union-attr,operator]
    nobody = http.post("match", files={"audio": SECOND.read_bytes()}, data={"candidates": "[]"}).json()
    assert nobody == {"caller_id": None, "similarity": None, "metadata": None}


def test_refused_audio_comes_with_its_quality(http: httpx.Client) -> None:
    problem = http.post("match?rate=16000", content=bytes(160_000)).json()
    assert (problem["error"], problem["feedback"][0]) == ("AudioQualityError", "no_speech")
    assert problem["quality"]["duration_s"] == 5.0


def test_an_id_with_any_character_is_one_part_of_a_path(http: httpx.Client) -> None:
    enrolled = http.post("callers/a%2Fb%20%C3%BC%25/voiceprints", content=FIRST.read_bytes())
    assert enrolled.json()["caller_id"] == "a/b ü%"


def test_a_request_without_a_valid_key_is_refused(server: Running) -> None:
    url = f"{server.url}/v1/galleries/default/identify"
    revoked = server.key("identify")
    server.service.keys.revoke(revoked)
    expired = server.key("identify", expires_at="2020-01-01")
    changed = server.key("identify")[:-1] + "!"
    for headers in {}, *({"X-API-Key": text} for text in ("x", revoked, expired, changed)):
        answer = httpx.post(url, content=b"", headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["error"]) == (401, "NotAuthenticatedError")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_of_another_role_or_gallery_is_refused(server: Running) -> None:
    enroll = server.headers("enroll")
    answer = httpx.post(f"{server.url}/v1/galleries/default/identify", content=b"", headers=enroll)
    assert (answer.status_code, answer.json()["error"]) == (403, "NotAllowedError")
    other = server.headers("admin", galleries=["other"])
    answers = [
        httpx.post(f"{server.url}/v1/galleries/{gallery}/identify", content=b"", headers=other)
        for gallery in ("default", "no-such")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    # Nothing tells a gallery of others from one that is not there.
    texts = [answer.json()["detail"].replace("no-such", "default") for answer in answers]
    assert texts[0] == texts[1]


def test_a_rate_limit_answers_with_the_time_to_wait(server: Running) -> None:
    headers = server.headers("identify", rate_limit=2)
    url = f"{server.url}/v1/galleries/default/identify"
    answers = [httpx.post(url, content=b"", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 31


@pytest.mark.parametrize(
    ("content", "headers", "error"),
    [
        (b"", {}, "InvalidAudioError"),
        (b"no audio", {}, "InvalidAudioError"),
        (b"{", {"Content-Type": "application/json"}, "InvalidArgumentError"),
        (b"[1]", {"Content-Type": "application/json"}, "InvalidArgumentError"),
        (b'{"embedding": [0.123456]}', {"Content-Type": "application/json"}, "InvalidArgumentError"),
        (b'{"no_such": 1}', {"Content-Type": "application/json"}, "InvalidArgumentError"),
        (b"x", {"Content-Type": "multipart/form-data"}, "InvalidArgumentError"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=y"}, "InvalidArgumentError"),
    ],
)
def test_a_body_that_cannot_be_used_is_a_problem_document(
    http: httpx.Client, content: bytes, headers: dict[str, str], error: str
) -> None:
    answer = http.post("identify", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (422, error)
    assert "0.123456" not in answer.text


def test_raw_samples_need_their_format_in_the_query(http: httpx.Client) -> None:
    quiet = bytes(160_000)
    assert (
        http.post("quality?encoding=mulaw", content=b"\xff" * 40_000).json()["quality"]["duration_s"] == 5.0
    )
    assert http.post("quality?rate=16000", content=quiet).json()["quality"]["duration_s"] == 5.0
    assert http.post("quality?rate=16000&channels=2", content=quiet).json()["quality"]["duration_s"] == 2.5
    assert http.post("quality?rate=1", content=quiet).json()["error"] == "InvalidAudioError"


def test_a_body_over_the_limit_is_cut(server: Running, http: httpx.Client) -> None:
    limit = server.service.settings.max_body_bytes
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /v1/galleries/default/identify HTTP/1.1\r\nHost: here\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % (limit + 1))
        claimed = b"".join(iter(lambda: connection.recv(10_000), b""))  # until the server closes
    assert claimed.startswith(b"HTTP/1.1 413 ")
    assert b'"RequestTooLargeError"' in claimed
    try:
        streamed = http.post("identify", content=(bytes(1024**2) for _ in range(limit // 1024**2 + 2)))
    except httpx.TransportError:  # the connection was cut before the client had read the answer
        return
    assert streamed.status_code == 413


def test_the_actor_and_the_request_are_in_the_audit_log(server: Running) -> None:
    headers = {**server.headers("identify", name="agent-17"), "X-Request-Id": "call-9"}
    answer = httpx.post(
        f"{server.url}/v1/galleries/default/identify",
        content=SECOND.read_bytes(),
        headers=headers,
        timeout=60,
    )
    assert answer.headers["x-request-id"] == "call-9"
    log = server.service.recognizer("default").audit_log()
    assert log is not None
    assert b'"actor":"key:agent-17"' in (line := next(log.backward()))
    assert b'"correlation_id":"call-9"' in line


def test_health_readiness_and_metrics(server: Running) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/readyz").json()["status"] == "ready"
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    some = server.headers("audit", galleries=["default"])
    assert httpx.get(f"{server.url}/metrics", headers=some).status_code == 403
    text = httpx.get(f"{server.url}/metrics", headers=server.headers("audit")).text
    assert 'route="/v1/galleries/{gallery}/identify"' in text
    assert "amara" not in text


def test_another_address_than_loopback_needs_keys_and_tls() -> None:
    ServerSettings().check_exposure(has_keys=False)
    open_to_all = ServerSettings(host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="there is no API key"):
        open_to_all.check_exposure(has_keys=False)
    with pytest.raises(ConfigurationError, match="without TLS"):
        open_to_all.check_exposure(has_keys=True)
    ServerSettings(host="0.0.0.0", behind_proxy=True).check_exposure(has_keys=True)


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SERVER_PORT", "99999")
    with pytest.raises(ConfigurationError, match="VOICE_SERVER_PORT is '99999'"):
        ServerSettings()
    monkeypatch.delenv("VOICE_SERVER_PORT")
    with pytest.raises(ConfigurationError, match="belong together"):
        ServerSettings(tls_key=Path("key.pem"))


def test_keys_are_made_listed_and_revoked_on_the_command_line(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = ("--state", tmp_path / "state.db")
    code, out, err = run("keys", "list", *state)
    assert (code, out) == (0, "")
    assert f"{tmp_path / 'state.db'} has no keys" in err
    assert not (tmp_path / "state.db").exists()
    code, out, err = run(
        "keys", "create", "--role", "identify", "--for", "brand-a", "--expires", "90d", *state
    )
    key = out.splitlines()[-1]
    assert (code, key.startswith("vp_")) == (0, True)
    assert key.split("_")[1] in err
    assert str(tmp_path / "state.db") in err
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"
    assert key.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "brand-a" in run("keys", "list", *state)[1]
    assert "Revoked" in run("keys", "revoke", key, *state)[1]
    assert "revoked" in run("keys", "list", *state)[1]
    assert run("keys", "revoke", "nobody", *state)[0] != 0
    assert "The role is 'king'" in run("keys", "create", "--role", "king", *state)[2]


def test_a_key_ends_at_a_time_to_come(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    create = ("keys", "create", "--role", "identify", "--state", tmp_path / "state.db")
    assert run(*create, "--expires", "2100-01-31")[0] == 0
    for wrong in ("yesterday", "0d", "2020-01-31"):
        code, out, err = run(*create, "--expires", wrong)
        assert (code, out) == (2, "")
        assert f"--expires is '{wrong}'" in err


def test_serve_names_the_fault_before_it_starts(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_SERVER_WORKRES", "2")
    monkeypatch.setenv("VOICE_SERVER_CALL_KEEP_S", "60")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run("serve", "--port", port)
    assert (code, out) == (2, "")
    warning, error = err.splitlines()
    assert warning.startswith("Warning: VOICE_SERVER_WORKRES is no setting")
    assert error.startswith(f"Error: Port {port} of 127.0.0.1 cannot be used")
    monkeypatch.delenv("VOICE_SERVER_WORKRES")

    Path("broken.json").write_text("{")
    monkeypatch.setenv("VOICE_STORAGE_PATH", "broken.json")
    code, _, err = run("serve", "--port", "0", "--workers", "2")
    assert (code, err.count("\n")) == (2, 1)
    assert "broken.json is not JSON" in err
    monkeypatch.delenv("VOICE_STORAGE_PATH")

    monkeypatch.setenv("VOICE_SERVER_TLS_CERTIFICATE", "broken.json")
    monkeypatch.setenv("VOICE_SERVER_TLS_KEY", "key.pem")
    code, _, err = run("serve", "--port", "0")
    assert code == 2
    assert "VOICE_SERVER_TLS_CERTIFICATE 'broken.json' and VOICE_SERVER_TLS_KEY 'key.pem'" in err


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(server: Running, is_chunked: bool) -> None:
    """The connection is not reset, which would lose the answer."""
    limit = server.service.settings.max_body_bytes
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/galleries/default/identify HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key('identify')}\r\n"
    )
    piece = bytes(2**20)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        if is_chunked:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(limit // len(piece) + 3):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        else:
            connection.sendall(f"{head}Content-Length: {limit + 3}\r\n\r\n".encode())
            for _ in range(3):
                connection.sendall(piece)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"RequestTooLargeError" in answer


def test_a_json_body_has_a_limit_of_its_own(http: httpx.Client) -> None:
    """The event loop parses it, for which all requests wait."""
    headers = {"Content-Type": "application/json"}
    answer = http.post("callers/search", content=b" " * (4 * 2**20 + 1), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, "RequestTooLargeError")
    assert http.post("callers/search", content=b" " * 2**20 + b"{}", headers=headers).status_code == 422
