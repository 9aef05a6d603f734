"""All routes of the service check the key: of another gallery, of each role, and none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from serving import Running
from voices import SAMPLES
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from voiceprint.server.app import create_app
from voiceprint.server.keys import ROLES

PAGE = (Path(__file__).parents[2] / "docs/server.md").read_text()
SHARED = {
    "/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/galleries", "/v1/calls/{call_id}",
}  # fmt: skip
"""Paths of no gallery: each has a test of its own, here or in its module."""

CONSOLE = {
    "/console", "/console/", "/console/login", "/console/logout", "/console/overview", "/console/open",
    "/console/{path:path}",
}  # fmt: skip
"""Pages of no gallery; the last is that of all paths without one."""

VALUES = {
    "caller_id": "alice",
    "voiceprint_id": "1",
    "group": "vip",
    "job_id": "1",
    "call_id": "c-1",
    "path": "x",
}


class Place(NamedTuple):
    """A method and path of the service; WEBSOCKET for a websocket."""

    method: str
    path: str

    def url(self, gallery: str) -> str:
        """The path for a gallery, with values in place of its other parameters."""
        path = self.path.replace("{gallery}", gallery)
        return re.sub(r"\{(\w+)[^}]*\}", lambda found: VALUES[found[1]], path)


def places(routes: Iterable[Any], prefix: str = "") -> Iterator[Place]:
    """All methods and paths, also of included routers."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from places(inner.routes, prefix + route.include_context.prefix)
        elif hasattr(route, "methods"):
            yield from (Place(method, prefix + route.path) for method in sorted(route.methods or ()))
        elif hasattr(route, "app") and hasattr(route, "routes"):  # a mounted folder
            yield Place("GET", f"{prefix}{route.path}/")
        else:
            yield Place("WEBSOCKET", prefix + route.path)


@pytest.fixture(scope="module")
def all_places(server: Running) -> list[Place]:
    """All methods and paths of the service."""
    return sorted({*places(create_app(server.service).routes)})


@pytest.fixture(scope="module")
def filled(server: Running, http: httpx.Client) -> Running:
    """The service, with a caller in the gallery `default`."""
    audio = (SAMPLES / "amara" / "1.flac").read_bytes()
    enrolled = http.post(
        "callers/alice/voiceprints", files={"audio": audio}, data={"metadata": '{"account": "secret-7"}'}
    )
    enrolled.raise_for_status()
    return server


def answer_of(server: Running, place: Place, gallery: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and content of an answer, in which the names of galleries are equal."""
    headers = {**headers, "X-Request-Id": "same"}
    if place.method == "WEBSOCKET":
        return _conversation(server, place, gallery, headers)
    answer = httpx.request(
        place.method, server.url + place.url(gallery), headers=headers, timeout=60, follow_redirects=False
    )
    text = f"{answer.headers.get('location', '')} {answer.text}"
    return answer.status_code, re.sub(r'value="[\w.-]{20,}"', "", text).replace(gallery, "GALLERY")


def _conversation(server: Running, place: Place, gallery: str, headers: dict[str, str]) -> tuple[int, str]:
    """Refusal of the handshake, or code and texts of the end."""
    url = server.url.replace("http", "ws", 1) + place.url(gallery)
    texts: list[str] = []
    try:
        with connect(url, additional_headers=headers, close_timeout=5) as socket:
            socket.send('{"rate": 8000}')
            while True:
                texts.append(str(socket.recv(timeout=20)))
    except InvalidStatus as error:
        return error.response.status_code, (error.response.body or b"").decode().replace(gallery, "GALLERY")
    except ConnectionClosed as error:
        reason = "" if error.rcvd is None else error.rcvd.reason
        return error.code, f"{texts} {reason}".replace(gallery, "GALLERY")


def test_every_path_is_of_a_gallery_or_is_one_of_those_for_all(all_places: list[Place]) -> None:
    assert len(all_places) > 40
    free = {place.path for place in all_places if "{gallery}" not in place.path}
    assert {path for path in free - SHARED - CONSOLE if not path.startswith("/console/static")} == set()


def test_a_key_of_another_gallery_gets_nothing_of_this_one(filled: Running, all_places: list[Place]) -> None:
    """No answer differs for a foreign gallery and one that does not exist."""
    key = filled.key("admin", "audit", galleries=["other"])
    found = []
    for place in all_places:
        if "{gallery}" not in place.path or place.path.startswith("/console"):
            continue
        foreign, missing = (
            answer_of(filled, place, gallery, {"X-API-Key": key}) for gallery in ("default", "no-such")
        )
        if foreign != missing or foreign[0] < 300 or "secret-7" in foreign[1]:
            found.append((place, foreign, missing))
    assert found == []


def test_a_session_of_another_gallery_gets_no_page_of_this_one(
    filled: Running, all_places: list[Place]
) -> None:
    pages = [place for place in all_places if place.path.startswith("/console/g/{gallery}")]
    if not pages:
        pytest.skip("this service has no console")
    with httpx.Client(base_url=filled.url, timeout=60, headers={"Origin": filled.url}) as browser:
        form = browser.get("/console/login")
        token = re.search(r'name="(\w+)" value="([^"]+)"', form.text)
        sent = {} if token is None else {token[1]: token[2]}
        key = filled.key("admin", "audit", galleries=["other"])
        assert browser.post("/console/login", data={"key": key, **sent}).status_code in (302, 303)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        headers = {"Cookie": cookies, "Origin": filled.url}
        own = answer_of(filled, Place("GET", "/console/g/{gallery}/callers"), "other", headers)
        assert own[0] == 200
    for place in pages:
        foreign, missing = (answer_of(filled, place, gallery, headers) for gallery in ("default", "no-such"))
        assert foreign == missing, place
        assert foreign[0] >= 300, place
        assert "secret-7" not in foreign[1], place


def test_nothing_is_answered_without_a_key(filled: Running, all_places: list[Place]) -> None:
    for place in all_places:
        if place.path in {"/", "/healthz", "/readyz", "/openapi.json"} or place.path.startswith("/console"):
            continue
        status, content = answer_of(filled, place, "default", {})
        assert status in (401, 403, 1008, 3000), (place, status)
        assert "secret-7" not in content


def operations() -> Iterator[tuple[str, str, set[str]]]:
    """Method, path and roles of each row of the table of operations in docs/server.md."""
    for method, path, roles in re.findall(r"^\| ([A-Z]+) `([^`]+)` \| ([^|]+) \|", PAGE, re.MULTILINE):
        path = (
            path
            if path.startswith(("/v1", "/health", "/ready", "/metrics"))
            else "/v1/galleries/{gallery}" + path
        )
        yield method, path, {*ROLES} if roles == "any" else {*re.findall(r"[a-z]+", roles)} & {*ROLES}


def test_each_operation_is_for_the_roles_that_the_page_names(
    filled: Running, all_places: list[Place]
) -> None:
    listed = {Place(method, path): roles for method, path, roles in operations()}
    assert listed.keys() >= {
        place
        for place in all_places
        if place.path.startswith("/v1/galleries/{gallery}") and place.method != "WEBSOCKET"
    }
    wrong = []
    for role in ROLES:
        headers = {"X-API-Key": filled.key(role, metadata=True)}
        may = {role} | ({"identify", "enroll"} if role == "admin" else set())
        for place, roles in listed.items():
            if place.path in {"/", "/healthz", "/readyz"}:
                continue
            # Of a caller who is not there, so that nothing is changed.
            absent = place._replace(path=place.path.replace("{caller_id}", "nobody"))
            status, _ = answer_of(filled, absent, "default", headers)
            if (status != 403) != bool(may & roles):
                wrong.append((role, place, status))
    assert wrong == []
