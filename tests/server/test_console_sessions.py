"""The sessions of the console, its forms, and who gets which page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from console_client import cookie_of, csrf_of, pages_of, signed_in
from serving import Running, serve
from sqlalchemy import select, update
from voices import BandEncoder, by_cosine, load_voices

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.server import ServerSettings, Service, create_app
from voiceprint.server.console.sessions import IDLE_S, LONGEST_S
from voiceprint.server.database import sessions

VOICES = load_voices()


@pytest.fixture(scope="module", autouse=True)
def enrolled(server: Running) -> None:
    """A caller in each gallery."""
    server.service.recognizer("default").enroll_caller("amara", VOICES["amara"][0])
    server.service.recognizer("other").enroll_caller("secret-caller", VOICES["gil"][0])


@pytest.fixture
def browser(server: Running) -> Iterator[httpx.Client]:
    with signed_in(server, "admin", "audit") as opened:
        yield opened


def test_every_page_without_a_session_leads_to_the_sign_in_and_back(server: Running) -> None:
    for path in ["/console/", "/console/overview", "/console/open?gallery=default", *pages_of("default")]:
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers["location"][:20]) == (303, "/console/login?next="), path
    assert (
        "next=/console/g/default/caller%3Fid%3Damara"
        in httpx.get(f"{server.url}/console/g/default/caller?id=amara").headers["location"]
    )


def test_a_wrong_key_is_refused_and_no_other_site_is_led_to(server: Running) -> None:
    with httpx.Client(base_url=server.url) as browser:
        token = csrf_of(browser.get("/console/login"))
        wrong = browser.post("/console/login", data={"key": "vp_x", "csrf": token, "next": "/console/"})
        assert wrong.status_code == 401
        assert "not valid" in wrong.text
        assert "voiceprint-session" not in browser.cookies
        for place in ("https://example.org/", "//example.org/", "/console/\\example.org", "/v1/x", ""):
            token = csrf_of(browser.get("/console/login"))
            form = {"key": server.key("admin"), "csrf": token, "next": place}
            answer = browser.post("/console/login", data=form)
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


def test_a_form_of_anyone_is_small(server: Running) -> None:
    url = f"{server.url}/console/login"
    assert httpx.post(url, content=b"key=" + bytes(70_000)).status_code == 413
    assert httpx.post(url, content=b"key=\xff").status_code == 400
    assert httpx.post(url, content="&".join(["key=x"] * 101).encode()).status_code == 400
    assert httpx.post(url, files={"key": b"x"}).status_code == 403


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(server: Running) -> None:
    with httpx.Client(base_url=server.url) as browser:
        token = csrf_of(browser.get("/console/login"))
        form = {"key": server.key("admin"), "csrf": token, "next": ""}
        cookies = browser.post("/console/login", data=form).headers.get_list("set-cookie")
    (cookie,) = (one for one in cookies if one.startswith("voiceprint-session="))
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie  # over HTTP, where the browser would not send it


def test_the_database_holds_no_token(browser: httpx.Client, server: Running) -> None:
    token = browser.cookies["voiceprint-session"]
    with server.service.database.read() as connection:
        rows = connection.execute(select(sessions)).all()
    assert rows
    assert not any(token.encode() in bytes(row.digest) or token in repr(row) for row in rows)


def test_a_session_ends_with_its_key_at_once(server: Running) -> None:
    key = server.key("admin")
    with httpx.Client(base_url=server.url) as browser:
        token = csrf_of(browser.get("/console/login"))
        browser.post("/console/login", data={"key": key, "csrf": token, "next": ""})
        assert browser.get("/console/").status_code == 200
        server.service.keys.revoke(key)
        assert browser.get("/console/").status_code == 303


def test_signing_out_ends_the_session_for_a_copy_of_its_cookie(server: Running) -> None:
    with signed_in(server, "admin") as browser:
        copy = dict(browser.cookies)
        browser.post("/console/logout", data={"csrf": csrf_of(browser.get("/console/"))})
        assert httpx.get(f"{server.url}/console/", cookies=copy).status_code == 303


@pytest.mark.parametrize(("column", "age_s"), [("used", IDLE_S), ("created", LONGEST_S)])
def test_a_session_ends_idle_or_old(server: Running, column: str, age_s: float) -> None:
    with signed_in(server, "admin") as browser:
        with server.service.database.begin() as connection:
            connection.execute(update(sessions).values({column: time.time() - age_s + 30}))
        assert browser.get("/console/", follow_redirects=False).status_code == 200
        with server.service.database.begin() as connection:
            connection.execute(update(sessions).values({column: time.time() - age_s - 1}))
        assert browser.get("/console/", follow_redirects=False).status_code == 303


def test_a_page_that_refreshes_itself_does_not_keep_the_session(server: Running) -> None:
    with signed_in(server, "admin") as browser:
        then = time.time() - IDLE_S / 2
        with server.service.database.begin() as connection:
            connection.execute(update(sessions).values(used=then))
        for headers, is_noted in ({"X-Console-Refresh": "1"}, False), ({}, True):
            browser.get("/console/overview", headers=headers)
            with server.service.database.read() as connection:
                used = max(row.used for row in connection.execute(select(sessions)))
            assert (used > then + 1) == is_noted


@pytest.mark.parametrize(
    "path", ["callers", "enroll", "delete", "threshold", "try", "audit/verify", "logout"]
)
def test_a_form_of_another_page_changes_nothing(browser: httpx.Client, server: Running, path: str) -> None:
    url = "/console/logout" if path == "logout" else f"/console/g/default/{path}"
    with signed_in(server, "admin") as other:
        stranger = csrf_of(other.get("/console/"))
    own = csrf_of(browser.get("/console/"))
    form = {"caller_id": "amara", "typed": "amara", "percent": "3"}
    origin = {"Origin": "https://example.org"}
    for fields, headers in ((form, {}), (form | {"csrf": stranger}, {}), (form | {"csrf": own}, origin)):
        answer = browser.post(url, data=fields, headers=headers)
        assert (answer.status_code, "FormError" in answer.text) == (403, True), (url, fields)
    assert server.service.recognizer("default").storage.get("amara") is not None
    assert server.service.overrides.target("default") is None


def test_a_key_gets_the_pages_of_its_roles_alone(server: Running) -> None:
    allowed = {
        ("identify",): {"try", "threshold", "live", "live/part", "call", "call/part"},
        ("enroll",): {"callers", "caller", "enroll"},
        ("audit",): {"audit"},
    }
    for roles, names in allowed.items():
        with signed_in(server, *roles) as browser:
            for path in pages_of("default"):
                name = path.removeprefix("/console/g/default/").partition("?")[0]
                answer = browser.get(path)
                assert (answer.status_code == 403) == (name not in names), (roles, path, answer.status_code)
            start = browser.get("/console/").text
            for name in ("callers", "try", "threshold", "live", "audit"):
                assert (f'href="/console/g/default/{name}"' in start) == (name in names)
            csrf = csrf_of(browser.get("/console/"))
            form = {"csrf": csrf, "caller_id": "amara", "typed": "amara", "percent": "3"}
            for name in ("delete", "threshold"):
                assert browser.post(f"/console/g/default/{name}", data=form).status_code == 403


def test_a_key_of_one_gallery_gets_nothing_of_another(server: Running) -> None:
    with signed_in(server, "admin", "audit", galleries=["default"]) as browser:
        assert "other" not in browser.get("/console/").text
        csrf = csrf_of(browser.get("/console/"))
        for gallery in ("other", "no-such"):
            for path in [*pages_of(gallery), f"/console/open?gallery={gallery}"]:
                assert browser.get(path).status_code == 404, path
            for name in ("enroll", "delete", "threshold", "try", "audit/verify"):
                form = {"csrf": csrf, "caller_id": "secret-caller", "typed": "secret-caller", "percent": "3"}
                assert browser.post(f"/console/g/{gallery}/{name}", data=form).status_code == 404
    assert server.service.recognizer("other").storage.get("secret-caller") is not None


def test_every_answer_forbids_what_a_page_does_not_need(browser: httpx.Client) -> None:
    for path in (
        "/console/",
        "/console/login",
        "/console/static/console.js",
        "/console/g/x/callers",
        "/console/x",
    ):
        headers = browser.get(f"/console/{path}").headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';"), path
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_sign_in_can_be_left_out(server: Running) -> None:
    # Of the same service, which the fixture closes.
    settings, server.service.settings = server.service.settings, ServerSettings(console=False)
    try:
        paths = {getattr(route, "path", "") for route in create_app(server.service).routes}
    finally:
        server.service.settings = settings
    assert not any(path.startswith("/console") for path in paths)


def test_another_worker_takes_the_session(browser: httpx.Client, server: Running) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    settings = ServerSettings(state=server.service.settings.state)
    with serve(Service({"default": recognizer}, settings)) as second:
        cookie = cookie_of(browser)
        answer = httpx.get(f"{second.url}/console/", headers=cookie)
        assert (answer.status_code, "Sign out" in answer.text) == (200, True)
        # This one has no audit log, nor a caller.
        recognizer.enroll_caller("gil", VOICES["gil"][0])
        for path in ("audit", "caller?id=gil"):
            page = httpx.get(f"{second.url}/console/g/default/{path}", headers=cookie, timeout=60)
            assert (page.status_code, "no audit log" in page.text) == (200, True)
        form = {"csrf": csrf_of(answer)}
        verified = httpx.post(f"{second.url}/console/g/default/audit/verify", data=form, headers=cookie)
        assert (verified.status_code, "set VOICE_AUDIT" in verified.text) == (409, True)


def test_the_cookie_is_for_https_alone_where_the_page_is(server: Running) -> None:
    async def cookies() -> list[str]:
        transport = httpx.ASGITransport(app=create_app(server.service))
        async with httpx.AsyncClient(transport=transport, base_url="https://voice.example") as browser:
            token = csrf_of(await browser.get("/console/login"))
            form = {"key": server.key("admin"), "csrf": token, "next": ""}
            answer = await browser.post("/console/login", data=form)
            return answer.headers.get_list("set-cookie")

    found = asyncio.run(cookies())
    assert [("Secure" in cookie) for cookie in found if "voiceprint-session" in cookie] == [True]


def test_a_key_that_has_used_its_requests_waits(server: Running) -> None:
    with signed_in(server, "admin", rate_limit=3) as browser:
        pages = [browser.get("/console/") for _ in range(4)]
    assert pages[-1].status_code == 429
    assert int(pages[-1].headers["retry-after"]) > 0
    assert "try again in" in pages[-1].text
