"""Callers, groups, audit and upkeep over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from serving import Running
from voices import SAMPLES

FIRST, SECOND = (SAMPLES / "amara" / name for name in ("1.flac", "2.flac"))
CONSENT = {"purpose": "authentication", "version": "2027-01"}


@pytest.fixture(scope="module")
def gallery(http: httpx.Client) -> httpx.Client:
    """The gallery with three callers: amara and bruno with a voiceprint, cleo with a consent."""
    for caller, account in ("amara", "7"), ("bruno", "8"):
        sample = next((SAMPLES / caller).glob("*.flac")) if (SAMPLES / caller).is_dir() else SECOND
        http.post(
            f"callers/{caller}/voiceprints",
            files={"audio": sample.read_bytes()},
            data={"metadata": f'{{"account": "{account}"}}', "groups": '["vip"]'},
        ).raise_for_status()
    http.put("callers/cleo", json={"consent": CONSENT, "metadata": {"account": "9"}, "groups": ["new"]})
    return http


def ids(answer: httpx.Response) -> list[str]:
    """The ids of the callers of a page."""
    return [caller["caller_id"] for caller in answer.raise_for_status().json()["callers"]]


def test_callers_are_listed_page_by_page(gallery: httpx.Client) -> None:
    page = gallery.get("callers", params={"limit": 2})
    assert ids(page) == ["amara", "bruno"]
    assert ids(gallery.get("callers", params={"limit": 2, "after": page.json()["next"]})) == ["cleo"]
    assert gallery.get("callers").json()["next"] is None
    assert "embedding" not in {
        name for name, value in page.json()["callers"][0]["voiceprints"][0].items() if value is not None
    }


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"metadata": {"account": "8"}}, ["bruno"]),
        ({"metadata": {"account": 8}}, []),
        ({"group": "vip"}, ["amara", "bruno"]),
        ({"group": "vip", "metadata": {"account": "7"}}, ["amara"]),
        ({"state": "pending"}, ["cleo"]),
        ({"prefix": "b"}, ["bruno"]),
        ({"prefix": "bruno"}, ["bruno"]),
        ({"prefix": "a", "after": "amara"}, []),
        ({"state": "expired"}, []),
    ],
)
def test_callers_are_found_by_conditions(
    gallery: httpx.Client, conditions: dict[str, Any], found: list[str]
) -> None:
    if "metadata" in conditions:
        assert ids(gallery.post("callers/search", json=conditions)) == found
    else:
        assert ids(gallery.get("callers", params=conditions)) == found


def test_a_key_without_metadata_neither_sees_nor_searches_it(server: Running, gallery: httpx.Client) -> None:
    headers = server.headers("enroll")
    assert gallery.get("callers/amara", headers=headers).json()["metadata"] is None
    answer = gallery.post("callers/search", json={"metadata": {"account": "7"}}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "NotAllowedError")
    assert gallery.post("callers/search", json={"metadata": {}}).status_code == 422


def test_a_caller_is_registered_changed_renamed_and_merged(gallery: httpx.Client) -> None:
    registered = gallery.put("callers/dora", json={"consent": CONSENT, "metadata": {"a": 1}}).json()
    assert (registered["state"], registered["metadata"], registered["voiceprints"]) == (
        "pending",
        {"a": 1},
        [],
    )
    changed = gallery.patch("callers/dora", json={"metadata": {"b": 2}})
    assert changed.json()["metadata"] == {"a": 1, "b": 2}
    replaced = gallery.patch("callers/dora", json={"metadata": {"c": 3}, "replace": True})
    assert replaced.json()["metadata"] == {"c": 3}
    assert gallery.patch("callers/dora", json={"caller_id": "d/ora"}).json()["caller_id"] == "d/ora"
    assert gallery.get("callers/dora").json()["error"] == "CallerNotFoundError"
    gallery.post("callers/twin/voiceprints", content=SECOND.read_bytes()).raise_for_status()
    merged = gallery.post("callers/d%2Fora/merge", json={"into": "twin"}).json()
    assert (merged["caller"]["caller_id"], merged["caller"]["metadata"], merged["removed"]) == (
        "twin",
        {"c": 3},
        [],
    )
    for body in {}, {"metadata": {}, "caller_id": "x"}:
        assert gallery.patch("callers/twin", json=body).status_code == 422
    assert gallery.delete("callers/twin").json()["voiceprints"] == 1


def test_a_deletion_comes_with_its_receipt(gallery: httpx.Client) -> None:
    gallery.post("callers/gone/voiceprints", content=SECOND.read_bytes()).raise_for_status()
    receipt = gallery.delete("callers/gone").json()
    assert (receipt["caller_id"], receipt["voiceprints"], receipt["complete"]) == ("gone", 1, True)
    assert gallery.delete("callers/gone").json()["error"] == "CallerNotFoundError"
    assert gallery.delete("callers/gone", params={"receipt": False}).json() == {"voiceprints": 0}


def test_a_refusal_erases_and_holds_until_the_opt_in(gallery: httpx.Client) -> None:
    gallery.post("callers/rex/voiceprints", content=SECOND.read_bytes()).raise_for_status()
    receipt = gallery.post("callers/rex/opt-out", json={"reason": "by phone"}).json()
    assert (receipt["voiceprints"], receipt["complete"]) == (1, True)
    refused = gallery.post("callers/rex/voiceprints", content=SECOND.read_bytes())
    assert (refused.status_code, refused.json()["error"]) == (409, "CallerOptedOutError")
    assert gallery.get("callers/rex").json()["opt_out"]["reason"] == "by phone"
    assert gallery.post("callers/rex/opt-in").json()["state"] == "pending"
    assert gallery.post("callers/rex/opt-out", params={"receipt": False}).json() == {"voiceprints": 0}
    gallery.delete("callers/rex")


def test_a_consent_is_stored_and_checked(gallery: httpx.Client) -> None:
    answer = gallery.put("callers/cleo/consent", json={**CONSENT, "version": "2"})
    assert answer.json()["consent"]["version"] == "2"
    over = {**CONSENT, "obtained_at": "2027-01-02", "expires_at": "2027-01-01"}
    wrong = gallery.put("callers/cleo/consent", json=over)
    assert (wrong.status_code, wrong.json()["error"]) == (422, "InvalidArgumentError")
    assert "give a later end" in wrong.json()["detail"]
    assert gallery.put("callers/cleo/consent", json={"purpose": "x"}).status_code == 422


def test_groups_are_set_added_removed_and_listed(gallery: httpx.Client) -> None:
    assert gallery.get("groups").json()["groups"]["vip"] == 2
    assert gallery.post("callers/amara/groups", json={"groups": ["a b"]}).json()["groups"] == ["a b", "vip"]
    assert ids(gallery.get("groups/a%20b/members")) == ["amara"]
    removed = gallery.delete("callers/amara/groups", params={"group": ["a b", "none"]})
    assert removed.json()["groups"] == ["vip"]
    assert gallery.put("callers/amara/groups", json={"groups": ["vip", "x"]}).json()["groups"] == ["vip", "x"]
    page = gallery.get("groups/vip/members", params={"limit": 1})
    assert (ids(page), page.json()["next"]) == (["amara"], "amara")
    assert ids(gallery.get("groups/vip/members", params={"after": "amara"})) == ["bruno"]
    assert gallery.post("callers/no/groups", json={"groups": ["x"]}).status_code == 404
    assert gallery.post("callers/amara/groups", json={"groups": [" x"]}).status_code == 422


def test_a_single_voiceprint_is_removed(gallery: httpx.Client) -> None:
    id_ = gallery.post("callers/one/voiceprints", content=SECOND.read_bytes()).json()["id"]
    assert gallery.delete(f"voiceprints/{id_}").json() == {"deleted": True}
    assert gallery.delete(f"voiceprints/{id_}").json() == {"deleted": False}
    assert gallery.get("callers/one").json()["voiceprints"] == []
    gallery.delete("callers/one")


def test_the_audit_log_is_queried_and_verified(server: Running, gallery: httpx.Client) -> None:
    found = gallery.post("identify", content=SECOND.read_bytes()).json()
    answer = gallery.get("audit", params={"event_id": found["event_id"]}).json()
    assert [event["action"] for event in answer["events"]] == ["identify"]
    told = gallery.post("feedback", json={"event_id": found["event_id"], "correct": True})
    assert told.status_code == 201
    actions = [event["action"] for event in gallery.get("audit", params={"limit": 2}).json()["events"]]
    assert actions == ["feedback", "identify"]
    lines: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = gallery.get("audit", params={"limit": 7, "action": ["enroll", "delete"], **before}).json()
        lines += [event["line"] for event in page["events"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert lines == sorted(set(lines), reverse=True)
    assert len(lines) >= 2
    head = gallery.get("audit/head").json()
    report = gallery.get("audit/verify", params={"anchor": head["anchor"]}).json()
    assert (report["intact"], report["anchors"]) == (True, 1)
    wrong = gallery.get("audit/verify", params={"anchor": f"{head['line']}:{'0' * 64}"}).json()
    assert (wrong["intact"], wrong["faults"][0]["code"]) == (False, "other_history")
    assert gallery.get("audit", params={"action": "sing"}).status_code == 422
    assert gallery.get("audit", headers=server.headers("admin")).status_code == 403
    nothing = gallery.post("feedback", json={"event_id": "x", "correct": True})
    assert (nothing.status_code, nothing.json()["error"]) == (422, "InvalidArgumentError")


def test_pages_of_callers_are_in_the_audit_log(gallery: httpx.Client) -> None:
    gallery.get("callers")
    event = gallery.get("audit", params={"limit": 1}).json()["events"][0]
    assert (event["action"], event["detail"]) == ("read", "callers by page")


def test_the_state_of_a_gallery_is_read(server: Running, gallery: httpx.Client) -> None:
    galleries = httpx.get(f"{server.url}/v1/galleries", headers=server.headers("audit", galleries=["other"]))
    assert galleries.json() == {"galleries": [{"name": "other"}], "roles": ["audit"]}
    assert gallery.get("index").json()["structure"] == "exact"
    assert gallery.post("index/rebuild").json()["vectors"] == gallery.get("index").json()["vectors"]
    assert gallery.get("spaces").json()["spaces"][0]["encoder"] == "test-bands"
    assert gallery.post("check").json() == {"findings": []}
    assert gallery.post("check", json={"fix": True}).json() == {"findings": []}
    assert gallery.get("threshold-advice").json() == {"advice": None}
    assert gallery.get("retention").json()["callers"] == 3
    assert gallery.post("retention/purge").json()["callers"] == []


def test_expired_callers_are_reported_and_purged(gallery: httpx.Client) -> None:
    over = {**CONSENT, "obtained_at": "2020-01-01", "expires_at": "2020-02-01"}
    gallery.put("callers/old/consent", json=over).raise_for_status()
    assert [one["caller_id"] for one in gallery.post("retention/purge").json()["callers"]] == ["old"]
    assert ids(gallery.get("callers", params={"state": "expired"})) == ["old"]
    purged = gallery.post("retention/purge", json={"dry_run": False, "receipts": True}).json()["callers"]
    assert purged[0]["receipt"]["complete"]
    assert gallery.get("callers/old").status_code == 404


def test_a_target_is_set_for_all_workers_and_taken_back(server: Running, gallery: httpx.Client) -> None:
    before = gallery.get("calibration").json()
    assert (before["decides"], before["similarity_threshold"]) == ("threshold", 0.75)
    after = gallery.put("calibration", json={"target_fpir": 0.02}).json()
    assert (after["decides"], after["target_fpir"], after["target_set"]) == ("target", 0.02, 0.02)
    assert server.service.recognizer("default").config.target_fpir == 0.02
    event = gallery.get("audit", params={"action": "settings"}).json()["events"][0]
    assert (event["detail"], event["actor"][:4]) == ("target_fpir 0.02", "key:")
    assert server.service.recognizer("other").config.target_fpir is None
    assert gallery.put("calibration", json={"target_fpir": 1.5}).status_code == 422
    assert gallery.put("calibration", json={"target_fpir": None}).json() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("callers/ana/consent", b'{"purpose": "a", "version": "b", "self": 1}'),
        ("callers/ana", b'{"consent": {"self": 1}}'),
        ("callers/ana", b'{"consent": {"\\ud800": 1}}'),
        ("callers/ana/groups", b'{"groups": ["\\ud800"]}'),
        ("callers/ana/groups", b'{"\\ud800": []}'),
        ("callers/%FF/groups", b'{"groups": []}'),
    ],
)
def test_names_that_no_schema_expects_are_refused(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.put(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidArgumentError")


def test_a_path_of_no_operation_names_the_list_of_all(http: httpx.Client) -> None:
    answer = http.get("nothing/ana")
    assert (answer.status_code, answer.json()["error"]) == (404, "NoSuchPathError")
    assert "GET /openapi.json" in answer.json()["detail"]
    assert "ana" not in answer.text


def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(http: httpx.Client) -> None:
    answer = http.request("TRACE", "callers/ana")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PATCH, PUT")
    assert answer.json()["detail"].endswith("is not allowed here: send DELETE, GET, PATCH, PUT.")
