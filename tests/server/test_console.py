"""The pages of the console over HTTP, and the texts of other people on them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from console_client import cookie_of, csrf_of, pages_of, signed_in
from serving import Running
from sqlalchemy import insert
from voices import SAMPLES, BandEncoder, by_cosine, load_voices
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from voiceprint import Consent, JSONStorage, MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.server import ServerSettings, Service
from voiceprint.server.console.figures import Readings
from voiceprint.server.console.overview import gallery_row
from voiceprint.server.console.pages import word
from voiceprint.server.console.picture import picture_of
from voiceprint.server.database import calls

VOICES = load_voices()
CLIP = (SAMPLES / "bruno" / "4.flac").read_bytes()
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module", autouse=True)
def enrolled(server: Running) -> None:
    """The sample callers in `default`, and one in `other`."""
    recognizer = server.service.recognizer("default")
    for caller, utterances in VOICES.items():
        for audio in utterances[:2]:
            recognizer.enroll_caller(caller, audio, {"name": caller.title(), "account": 7}, source="call-1")
    recognizer.add_to_group("amara", "vip")
    recognizer.set_consent("amara", Consent(purpose="authentication", version="v3"))
    recognizer.opt_out("ivo", reason="by telephone")
    server.service.recognizer("other").enroll_caller("secret-caller", VOICES["gil"][0])


@pytest.fixture
def browser(server: Running) -> Iterator[httpx.Client]:
    with signed_in(server, "admin", "audit") as opened:
        yield opened


def test_the_root_leads_to_the_console(browser: httpx.Client, server: Running) -> None:
    answer = browser.get(f"{server.url}/", follow_redirects=True)
    assert (answer.status_code, str(answer.url)) == (200, f"{server.url}/console/")


def test_codes_are_words_for_a_reader() -> None:
    codes = ("too_short", "AudioQualityError", "accepted")
    assert [word(code) for code in codes] == ["Too short", "Audio quality error", "Accepted"]


def test_callers_are_searched_by_id_group_and_metadata(browser: httpx.Client) -> None:
    def found(query: str, **metadata: str) -> list[str]:
        url = f"/console/g/default/callers{query}"
        form = {"csrf": csrf_of(browser.get(url)), **metadata}
        page = browser.post(url, data=form) if metadata else browser.get(url)
        assert page.status_code == 200
        return re.findall(r'href="caller\?id=([^"]+)"', page.text)

    assert found("")[:2] == ["amara", "bruno"]
    assert found("?prefix=am") == ["amara"]
    assert found("?group=vip") == ["amara"]
    assert found("?after=hakan") == ["ivo"]
    assert found("", key="name", value="Bruno") == ["bruno"]
    assert len(found("", key="account", value="7")) == 8
    assert found("", key="account", value="7", after="farid") == ["gil", "hakan"]
    assert found("", key="account", value='"7"') == []
    assert found("?prefix=nobody") == []


def test_one_caller_has_prints_consent_groups_and_answers(browser: httpx.Client) -> None:
    browser.post(
        "/console/g/default/try",
        data={"csrf": csrf_of(browser.get("/console/"))},
        files={"audio": ("amara.flac", (SAMPLES / "amara" / "4.flac").read_bytes())},
    )
    page = browser.get("/console/g/default/caller?id=amara").text
    for text in ("Amara", "authentication", "v3", "vip", "call-1", "test-bands", "Identify", "Accepted"):
        assert text in page
    assert "Opted out" in browser.get("/console/g/default/caller?id=ivo").text
    missing = browser.get("/console/g/default/caller?id=nobody")
    assert (missing.status_code, "There is no caller" in missing.text) == (404, True)


def test_metadata_is_on_the_pages_of_keys_that_may_see_it_alone(server: Running) -> None:
    for options, sees in ({}, False), ({"metadata": True}, True):
        with signed_in(server, "enroll", **options) as browser:
            assert ("Amara" in browser.get("/console/g/default/caller?id=amara").text) == sees
            form = {"csrf": csrf_of(browser.get("/console/")), "key": "name", "value": "Amara"}
            search = browser.post("/console/g/default/callers", data=form)
            assert (search.status_code == 200) == sees


def test_texts_of_other_people_are_no_markup(browser: httpx.Client, server: Running) -> None:
    recognizer = server.service.recognizer("default")
    caller = f'{SCRIPT}"&/ü'
    recognizer.enroll_caller(caller, VOICES["hakan"][2], {SCRIPT: SCRIPT, "more": [SCRIPT]}, groups=[SCRIPT])
    found = {"verdict": "accepted", "caller_id": caller, "matches": [{"caller_id": caller}], "watch_hits": []}
    details = json.dumps({"answer": found})
    with server.service.database.begin() as connection:
        values = {"state": "live", "created": time.time(), "details": details}
        connection.execute(insert(calls).values(call_id=SCRIPT, gallery="default", **values))
    start = browser.get("/console/g/default/callers?prefix=" + "%3Cscript").text
    links = re.findall(r'href="(caller\?id=[^"]+)"', start)
    assert len(links) == 1
    page = browser.get(f"/console/g/default/{links[0]}")
    assert page.status_code == 200
    others = [
        browser.get(f"/console/g/default/{path}").text
        for path in ("live", "call?id=%3Cscript%3Ealert(1)%3C/script%3E", "audit", f"callers?prefix={SCRIPT}")
    ]
    for text in (start, page.text, *others):
        assert "&lt;script&gt;" in text
        assert "<script>alert" not in text
    recognizer.delete_caller(caller)
    with server.service.database.begin() as connection:
        connection.execute(calls.delete())


def test_no_page_holds_an_embedding(browser: httpx.Client, server: Running) -> None:
    caller = server.service.recognizer("default").storage.get("amara")
    assert caller is not None
    values = [f"{value:.4f}" for value in caller.voiceprints[0].embedding[:8]]
    for path in pages_of("default"):
        page = browser.get(path).text
        assert not any(value in page for value in values)
        assert "fingerprints" not in page


def test_a_file_is_identified_with_its_place_in_the_picture(browser: httpx.Client) -> None:
    csrf = csrf_of(browser.get("/console/g/default/try"))
    page = browser.post("/console/g/default/try", data={"csrf": csrf}, files={"audio": ("a.flac", CLIP)}).text
    assert '<span class="tag accepted">Accepted</span>' in page
    assert ">bruno</a>" in page
    assert re.search(r'data-mark x="\d+(\.\d+)?%"', page)
    assert "each left out as a stranger, 0 score as high" in page


@pytest.mark.parametrize(
    ("files", "status", "text"),
    [
        ({"audio": ("a.wav", b"no audio")}, 422, "InvalidAudioError"),
        ({"audio": ("a.wav", b"")}, 422, "The audio is empty"),
        ({}, 422, "InvalidAudioError"),
        ({"file": ("a.flac", CLIP)}, 422, "field `audio`"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_page_that_says_so(
    browser: httpx.Client, files: dict[str, tuple[str, bytes]], status: int, text: str
) -> None:
    csrf = csrf_of(browser.get("/console/g/default/try"))
    fields = {"csrf": (None, csrf)}
    page = browser.post("/console/g/default/try", files={**fields, **files})
    assert (page.status_code, text in page.text) == (status, True), page.text


def test_silence_is_an_answer(browser: httpx.Client) -> None:
    csrf = csrf_of(browser.get("/console/g/default/try"))
    silence = (
        b"RIFF"
        + (36 + 64_000).to_bytes(4, "little")
        + b"WAVEfmt "
        + bytes.fromhex("1000000001000100401f0000803e000002001000")
        + b"data"
        + (64_000).to_bytes(4, "little")
        + bytes(64_000)
    )
    page = browser.post("/console/g/default/try", data={"csrf": csrf}, files={"audio": ("a.wav", silence)})
    assert (page.status_code, 'role="alert"' in page.text) == (200, True)


def test_a_target_is_saved_for_all_and_taken_back(browser: httpx.Client, server: Running) -> None:
    url = "/console/g/default/threshold"
    page = browser.get(url).text
    assert "from a similarity of <b>0.75</b>" in page
    for percent in ("0", "100", "-1", "nan", "much", ""):
        answer = browser.post(url, data={"csrf": csrf_of(browser.get(url)), "percent": percent})
        assert answer.status_code == 422, percent
    saved = browser.post(url, data={"csrf": csrf_of(browser.get(url)), "percent": "0,5"}).text
    assert "Saved." in saved
    assert "<b>0.5 %</b> of strangers" in saved
    assert server.service.recognizer("default").config.target_fpir == 0.005
    browser.post(url, data={"csrf": csrf_of(browser.get(url)), "reset": "true"})
    assert server.service.recognizer("default").config.target_fpir is None


def test_a_gallery_of_few_callers_has_no_picture(browser: httpx.Client) -> None:
    for page in ("try", "threshold"):
        assert "too few callers" in browser.get(f"/console/g/other/{page}").text


def test_a_caller_is_enrolled_and_deleted_with_a_receipt(browser: httpx.Client, server: Running) -> None:
    url = "/console/g/other"
    form = {"csrf": csrf_of(browser.get(f"{url}/enroll")), "caller_id": "a/b ü", "groups": "vip, new"}
    half = {**form, "purpose": "authentication"}
    audio = {"audio": ("bruno.flac", CLIP)}
    assert browser.post(f"{url}/enroll", data=half, files=audio).status_code == 422
    whole = {**half, "version": "v3"}
    page = browser.post(f"{url}/enroll", data=whole, files=audio)
    assert (page.status_code, page.url.path) == (200, f"{url}/caller")
    caller = server.service.recognizer("other").storage.get("a/b ü")
    assert caller is not None
    assert caller.groups == ("new", "vip")
    delete = {"csrf": form["csrf"], "caller_id": "a/b ü"}
    wrong = browser.post(f"{url}/delete", data={**delete, "typed": "a/b"})
    assert (wrong.status_code, "nothing was deleted" in wrong.text) == (422, True)
    receipt = browser.post(f"{url}/delete", data={**delete, "typed": "a/b ü"})
    assert (receipt.status_code, "Complete" in receipt.text) == (200, True)
    assert server.service.recognizer("other").storage.get("a/b ü") is None
    again = browser.post(f"{url}/delete", data={**delete, "typed": "a/b ü"})
    assert again.status_code == 404


def test_the_audit_log_is_searched_and_verified(browser: httpx.Client) -> None:
    url = "/console/g/default/audit"
    page = browser.get(url + "?action=enroll&caller=amara").text
    assert ">amara</td>" in page
    assert ">bruno</td>" not in page
    assert "No event is like that" in browser.get(url + "?actor=nobody").text
    assert browser.get(url + "?since=yesterday").status_code == 422
    first = browser.get(url).text
    older = re.search(r'href="(audit\?[^"]*before=\d+)"', first)
    if older is not None:
        assert browser.get(f"/console/g/default/{older[1]}").status_code == 200
    report = browser.post(f"{url}/verify", data={"csrf": csrf_of(browser.get(url))}).text
    assert "in one chain" in report


def test_the_figures_are_those_of_the_last_minute_and_of_the_own_galleries(server: Running) -> None:
    readings = Readings()
    before = readings.figures(server.service, ["default"])
    assert (before.answers_a_minute, before.p50_s) == (None, None)
    headers = server.headers("identify")
    for _ in range(3):
        httpx.post(f"{server.url}/v1/galleries/default/identify", content=CLIP, headers=headers, timeout=60)
    readings._readings[0] = readings._readings[0]._replace(at=readings._readings[0].at - 30)
    after = readings.figures(server.service, ["default"])
    assert sum(after.recent_verdicts.values()) == 3
    assert after.answers_a_minute == pytest.approx(6, rel=0.2)
    assert after.p50_s is not None
    assert after.p95_s is not None
    assert 0 < after.p50_s <= after.p95_s
    assert sum(readings.figures(server.service, ["other"]).verdicts.values()) == 0
    # Nobody has looked for two minutes: a rate since then would not be that of now.
    for place, reading in enumerate(readings._readings):
        readings._readings[place] = reading._replace(at=reading.at - 120)
    later = readings.figures(server.service, ["default"])
    assert (later.answers_a_minute, later.recent_verdicts) == (None, {})


def stream_url(server: Running, gallery: str = "default") -> str:
    return f"{server.url.replace('http', 'ws')}/console/g/{gallery}/try/stream"


def test_the_microphone_of_another_site_key_or_gallery_is_refused(server: Running) -> None:
    with signed_in(server, "enroll") as enroller, signed_in(server, "identify", galleries=["other"]) as other:
        refused = [
            (stream_url(server), {}),
            (stream_url(server), {"Cookie": "voiceprint-session=x"}),
            (stream_url(server), cookie_of(enroller)),
            (stream_url(server), cookie_of(other)),
            (stream_url(server, "no-such"), cookie_of(other)),
            (stream_url(server, "other"), {**cookie_of(other), "Origin": "https://example.org"}),
        ]
        for url, headers in refused:
            with pytest.raises(InvalidStatus, match="403"), connect(url, additional_headers=headers):
                pass
        own = {**cookie_of(other), "Origin": server.url}
        with connect(stream_url(server, "other"), additional_headers=own):
            pass


@pytest.mark.parametrize(
    "first", ["", "{}", "[1]", '{"rate": 1}', '{"rate": "16000"}', '{"rate": 96000}', b"\0\0", "[" * 5000]
)
def test_a_stream_without_its_rate_is_refused(
    browser: httpx.Client, server: Running, first: str | bytes
) -> None:
    with connect(stream_url(server), additional_headers=cookie_of(browser)) as socket:
        socket.send(first)
        answer = json.loads(socket.recv(20))
        assert answer["type"] == "error"
        assert "rate of the audio" in answer["detail"]
        with pytest.raises(ConnectionClosed):
            socket.recv(20)


def test_a_message_of_a_stream_is_limited(browser: httpx.Client, server: Running) -> None:
    with connect(stream_url(server), additional_headers=cookie_of(browser)) as socket:
        socket.send('{"rate": 16000}')
        socket.send(bytes(300_000))
        assert "send less at once" in json.loads(socket.recv(20))["detail"]


@pytest.mark.parametrize("chunk", [1_001, 3_200])  # half of a sample at the end of each, or none
def test_a_stream_is_answered_while_it_lasts(browser: httpx.Client, server: Running, chunk: int) -> None:
    audio = (VOICES["carlo"][3] * 32767).astype("<i2").tobytes()
    with connect(stream_url(server), additional_headers=cookie_of(browser)) as socket:
        socket.send('{"rate": 16000}')
        for start in range(0, len(audio), chunk):
            socket.send(audio[start : start + chunk])
        socket.send("stop")
        answers = [json.loads(text) for text in socket]
    assert len(answers) > 3
    assert [answer["final"] for answer in answers] == [False] * (len(answers) - 1) + [True]
    last = answers[-1]
    assert (last["verdict"], last["matches"][0]["caller_id"]) == ("accepted", "carlo")
    assert 0 < last["x"] <= 100
    assert "metadata" not in json.dumps(answers)
    with connect(stream_url(server), additional_headers=cookie_of(browser)) as socket:
        socket.send('{"rate": 16000}')
        socket.send("stop")
        (empty,) = [json.loads(text) for text in socket]
    assert (empty["verdict"], empty["matches"], empty["x"]) == ("inconclusive", [], None)


def test_a_stream_ends_with_its_key(server: Running) -> None:
    key = server.key("identify")
    with httpx.Client(base_url=server.url) as browser:
        token = csrf_of(browser.get("/console/login"))
        browser.post("/console/login", data={"key": key, "csrf": token, "next": ""})
        with connect(stream_url(server), additional_headers=cookie_of(browser)) as socket:
            socket.send('{"rate": 16000}')
            socket.send(bytes(16_000))
            assert json.loads(socket.recv(20))["type"] == "answer"
            server.service.keys.revoke(key)
            socket.send(bytes(16_000))
            assert json.loads(socket.recv(20)) == {"type": "error", "detail": "Sign in with an API key."}


def test_a_path_that_is_no_page_is_an_error_page(browser: httpx.Client, server: Running) -> None:
    missing = browser.get("/console/no-such")
    assert (missing.status_code, "The console has no page" in missing.text) == (404, True)
    assert httpx.get(f"{server.url}/console/no-such").status_code == 404
    assert httpx.get(f"{server.url}/console", follow_redirects=True).url.path == "/console/login"
    for place in ("/", "/console"):
        answer = httpx.get(f"{server.url}{place}", headers={"Host": "elsewhere.example"})
        assert (answer.status_code, answer.headers["location"]) == (307, "console/")
    for place in ("/", "/console", "/console/", "/console/login"):
        get, head = (httpx.request(verb, f"{server.url}{place}") for verb in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (get.status_code, b"")
    assert browser.get("/console/static/no-such.js").status_code == 404
    assert browser.get("/console/static/../pages.py").status_code == 404
    back = browser.get("/console/no-such", headers={"Referer": f"{server.url}/console/g/default/try"}).text
    assert 'href="/console/g/default/try">Back' in back
    assert ">Back" not in browser.get("/console/no-such", headers={"Referer": "https://example.org/"}).text


def test_a_part_of_a_page_fails_as_a_part(browser: httpx.Client, server: Running) -> None:
    headers = {"X-Console-Refresh": "1"}
    ended = httpx.get(f"{server.url}/console/overview", headers=headers)
    assert (ended.status_code, "<html" in ended.text) == (401, False)
    missing = browser.get("/console/g/default/call/part?id=x", headers=headers)
    assert (missing.status_code, "<html" in missing.text, "no call" in missing.text) == (404, False, True)


def test_a_query_that_cannot_be_read_is_an_error_page(browser: httpx.Client) -> None:
    for path in ("audit?before=last", "call", "caller?id="):
        page = browser.get(f"/console/g/default/{path}")
        assert (page.status_code, "InvalidArgumentError" in page.text) == (422, True)


def test_a_store_that_cannot_be_used_is_one_row_of_the_overview(tmp_path: Path) -> None:
    broken = tmp_path / "voiceprints.json"
    settings = ServerSettings(state=str(tmp_path / "state.db"))
    recognizer = OpusAgentVoiceRecognizer(JSONStorage(broken), encoder=BandEncoder(), config=by_cosine())
    with Service({"broken": recognizer}, settings) as service:
        assert gallery_row(service, "broken").problem is None
        broken.write_text("{")
        row = gallery_row(service, "broken")
    assert (row.problem, row.callers) == ("StorageCorruptError", 0)


def test_a_long_list_of_scores_is_thinned(server: Running) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 32)) + rng.normal(size=(200, 32)).repeat(2, axis=0) * 3
    recognizer.enroll_embeddings([f"c{row // 2}" for row in range(400)], embeddings)
    for by_llr in (True, False):
        picture = picture_of(recognizer, by_llr=by_llr)
        assert picture is not None
        assert len(picture.stranger_ticks) == 120
        assert len(picture.known_ticks) == 120
        assert 2 <= len(picture.axis) <= 9
        assert picture.x(picture.low - 1) == 0
        assert picture.x(picture.high + 1) == 100
    recognizer.config.calibrated_similarity = True  # decides by a probability, which is no score of the axis
    calibrated = picture_of(recognizer)
    assert calibrated is not None
    assert (calibrated.scale, calibrated.line) == ("llr", None)
