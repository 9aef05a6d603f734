"""Groups: a search among their callers is exact, at the moment of the match, and so are watchlists."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from over_http import Reached, over_http
from processes import finish, start
from streams import enrolled
from voices import RATE

from tools.gallery_model import GalleryModel
from voiceprint import (
    CallerNotFoundError,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    Storage,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.identification.groups import EVERYONE, GroupMap, Scope
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.storage.base import START, Changes

GROUPS = ("fraud", "home 1", "vip")


def unit(seed: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(seed).standard_normal(256).astype(np.float32)
    return vector / np.linalg.norm(vector)


@contextmanager
def opened(where: str, folder: Path) -> Iterator[OpusAgentVoiceRecognizer]:
    storage: Storage = MemoryStorage() if where == "memory" else SQLiteStorage(folder / "callers.db")
    with OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(index_path="off")) as recognizer:
        yield recognizer


def by_brute_force(
    storage: Storage, probe: NDArray[np.float32], groups: Iterable[str] | None, not_groups: Iterable[str]
) -> list[str]:
    """The callers of the groups by the records alone, the most similar first."""
    best = {
        caller.caller_id: max(float(one.embedding @ probe) for one in caller.voiceprints)
        for caller in storage.iter_callers()
        if caller.voiceprints
        and (groups is None or {*groups} & {*caller.groups})
        and not {*not_groups} & {*caller.groups}
    }
    return sorted(best, key=lambda name: -best[name])


NAMES = st.sampled_from([f"caller {n}" for n in range(12)])
SOME = st.lists(st.sampled_from([*GROUPS, "nobody's"]), max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("enroll"), NAMES, st.integers(0, 10**6), SOME),
    st.tuples(st.just("add"), NAMES, SOME),
    st.tuples(st.just("remove"), NAMES, SOME),
    st.tuples(st.just("set"), NAMES, SOME),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("opt_out"), NAMES),
    st.tuples(st.just("rename"), NAMES, st.integers(0, 10**6)),
    st.tuples(st.just("ask"), st.integers(0, 10**6), st.one_of(st.none(), SOME), SOME, st.integers(1, 9)),
)


@pytest.mark.parametrize("where", ["memory", "sqlite"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_any_run_of_changes_gives_the_answers_of_a_brute_force(
    where: str, steps: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with opened(where, tmp_path_factory.mktemp("store")) as recognizer:
        storage = recognizer.storage
        for step in [*steps, ("ask", 1, ["vip"], [], 5), ("ask", 2, None, ["fraud"], 5)]:
            change(recognizer, step)
            if step[0] == "ask":
                _, seed, groups, not_groups, k = step
                found = recognizer.identify(embedding=unit(seed), k=k, groups=groups, not_groups=not_groups)
                right = by_brute_force(storage, unit(seed), groups, not_groups)
                assert [match.caller_id for match in found] == right[:k]
        assert recognizer.check() == []


def change(recognizer: OpusAgentVoiceRecognizer, step: tuple[Any, ...]) -> None:
    action, name, *values = step
    if action == "enroll" and not is_refused(recognizer, name):
        recognizer.enroll_caller(name, embedding=unit(values[0]))
        recognizer.add_to_group(name, *values[1])
    if action == "ask" or recognizer.get_caller(name) is None or is_refused(recognizer, name):
        return
    if action == "add":
        recognizer.add_to_group(name, *values[0])
    elif action == "remove":
        recognizer.remove_from_group(name, *values[0])
    elif action == "set":
        assert recognizer.set_groups(name, values[0]).groups == tuple(sorted({*values[0]}))
    elif action == "delete":
        recognizer.delete_caller(name)
    elif action == "opt_out":
        recognizer.opt_out(name)
    elif action == "rename":
        recognizer.storage.rename(name, f"{name} {values[0]}")


def is_refused(recognizer: OpusAgentVoiceRecognizer, name: str) -> bool:
    caller = recognizer.get_caller(name)
    return caller is not None and caller.opt_out is not None


def test_k_are_found_where_few_of_many_are_in_the_group() -> None:
    with OpusAgentVoiceRecognizer(MemoryStorage()) as recognizer:
        recognizer.storage.save_many(
            Voiceprint(f"c{n:04}", unit(n), groups=["vip"] if n % 100 == 0 else []) for n in range(1_500)
        )
        for seed in range(20):
            found = recognizer.identify(embedding=unit(10_000 + seed), groups=["vip"])
            right = by_brute_force(recognizer.storage, unit(10_000 + seed), ["vip"], [])
            assert [match.caller_id for match in found] == right[:5]


# At the moment of the match


def test_the_next_match_follows_a_change_of_another_process(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as recognizer:
        for n in range(8):
            recognizer.enroll_caller(f"c{n}", embedding=unit(n))

        def found(**filters: Any) -> list[str]:
            return sorted(
                match.caller_id for match in recognizer.identify(embedding=unit(99), k=9, **filters)
            )

        assert found(groups=["vip"]) == []
        url = recognizer.storage.location
        finish(start(url, "storage.set_groups('c1', add=['vip']); storage.set_groups('c2', add=['vip'])"))
        assert found(groups=["vip"]) == ["c1", "c2"]
        finish(start(url, "storage.set_groups('c1', remove=['vip'], add=['fraud'])"))
        assert found(groups=["vip"]) == ["c2"]
        assert found(not_groups=["fraud"]) == ["c0", *(f"c{n}" for n in range(2, 8))]
        finish(start(url, "storage.delete('c2')"))
        assert found(groups=["vip"]) == []


def test_the_record_decides_who_is_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who leaves the group between the search and the reading of the record is not named."""
    with OpusAgentVoiceRecognizer(MemoryStorage()) as recognizer:
        for n in range(3):
            recognizer.enroll_caller(f"c{n}", embedding=unit(n), groups=["vip"])
        gallery = recognizer._gallery
        read = gallery.read

        def left_meanwhile(ids: list[int]) -> list[Voiceprint]:
            recognizer.remove_from_group("c1", "vip")
            return read(ids)

        monkeypatch.setattr(gallery, "read", left_meanwhile)
        assert {one.caller_id for one in recognizer.identify(embedding=unit(1), groups=["vip"])} == {
            "c0",
            "c2",
        }


def test_a_change_of_groups_leaves_the_snapshot_and_a_replaced_embedding_erases_it(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "callers.db")
    with OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig()) as recognizer:
        kept = storage.save_many(Voiceprint(f"c{n}", unit(n)) for n in range(50))
        recognizer.rebuild_index()
        path = recognizer.snapshot_path()
        assert path is not None
        recognizer.add_to_group("c7", "vip")
        assert [match.caller_id for match in recognizer.identify(embedding=unit(1), groups=["vip"])] == ["c7"]
        assert path.exists()
        SharedIndex.forget_all()  # as a process that starts now: the groups are read from the store
        with OpusAgentVoiceRecognizer(SQLiteStorage(tmp_path / "callers.db")) as other:
            found = other.identify(embedding=unit(1), groups=["vip"])
            assert [match.caller_id for match in found] == ["c7"]
        assert path.exists()
        kept[3].embedding = unit(1_000)
        storage.save(kept[3])
        assert recognizer.identify(embedding=unit(1_000))[0].caller_id == "c3"
        assert not path.exists()


ACTIONS = st.tuples(st.integers(1, 40), st.lists(st.sampled_from(GROUPS), max_size=3, unique=True))


@settings(max_examples=200, deadline=None)
@given(pages=st.lists(st.tuples(st.lists(ACTIONS, max_size=9), st.sets(st.integers(1, 40)))))
def test_the_map_of_groups_is_that_of_all_changes(pages: list[Any]) -> None:
    of_ids: dict[int, tuple[str, ...]] = {}
    groups = GroupMap({})
    for changed, removed in pages:
        after = {id_: tuple(sorted(names)) for id_, names in changed if id_ not in removed}
        for id_ in removed:
            of_ids.pop(id_, None)
        of_ids |= after
        groups.apply(
            Changes(
                START,
                np.array(sorted(removed), dtype=np.int64),
                np.array(list(after), dtype=np.int64),
                np.empty((len(after), 256), dtype=np.float32),
                groups={id_: names for id_, names in after.items() if names},
            )
        )
        ids_of = {name: np.array([id_ for id_ in of_ids if name in of_ids[id_]]) for name in GROUPS}
        assert groups.check(ids_of) == []
        for scope in (Scope(("vip",)), Scope(("fraud", "vip"), ("home 1",)), Scope(None, ("vip", "fraud"))):
            allowed, excluded = groups.ids(scope)
            assert (allowed is None) == (scope.groups is None)
            admitted = {id_ for id_, names in of_ids.items() if scope.admits(names)}
            if allowed is not None:
                assert set(allowed) == admitted
            else:
                assert excluded is not None
                assert set(of_ids) - set(excluded) == admitted


def test_a_scope_gives_the_same_set_of_ids_until_its_groups_change() -> None:
    groups = GroupMap({"vip": np.array([1, 2]), "fraud": np.array([3]), "none": np.array([], dtype=int)})
    assert (len(groups), "none" in groups) == (2, False)
    one, other = groups.ids(Scope(("vip",))), groups.ids(Scope(("vip",)))
    assert one.allowed is not None
    assert one.allowed is other.allowed
    assert groups.ids(EVERYONE) == (None, None)
    for n in range(300):  # scopes are not kept without a bound
        groups.ids(Scope((f"home {n}",)))
        groups.note_count(Scope((f"home {n}",)), one.allowed, 1)
    assert len(groups._scopes) < 300
    assert len(groups._callers) < 300


# Rates of the groups alone, and watchlists


@pytest.fixture(scope="module")
def _model_gallery() -> Iterator[OpusAgentVoiceRecognizer]:
    """400 callers of the gallery model with real statistics; every 20th is in fraud, and every 2nd in vip."""
    model = GalleryModel.load()
    chance = np.random.default_rng(3)
    voices = model.voices(400, chance)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=VoiceFingerprintConfig(target_fpir=0.01))
    recognizer.storage.save_many(
        Voiceprint(
            f"c{n:03}", vector, groups=[name for name, every in (("fraud", 20), ("vip", 2)) if n % every == 0]
        )
        for n, vector in enumerate(model.recordings(voices, chance))
    )
    recognizer.probes = model.recordings(voices, chance)  # type: ignore[attr-defined]
    with recognizer:
        yield recognizer


@pytest.fixture
def gallery(_model_gallery: OpusAgentVoiceRecognizer, reached: Reached) -> OpusAgentVoiceRecognizer:
    """The gallery of the model, as the test is to use it."""
    return reached(_model_gallery)


def probe_of(gallery: OpusAgentVoiceRecognizer, number: int) -> NDArray[np.float32]:
    probes: NDArray[np.float32] = gallery.probes  # type: ignore[attr-defined]
    return probes[number]


@over_http
def test_the_rate_of_strangers_is_that_of_a_gallery_of_the_groups_alone(
    gallery: OpusAgentVoiceRecognizer,
) -> None:
    probe = probe_of(gallery, 40)
    everyone, vip, fraud = (
        gallery.identify(embedding=probe, groups=groups)[0] for groups in (None, ["vip"], ["fraud"])
    )
    assert {everyone.caller_id, vip.caller_id, fraud.caller_id} == {"c040"}
    assert everyone.llr == vip.llr == fraud.llr
    assert everyone.fpir is not None
    assert vip.fpir is not None
    assert fraud.fpir is not None
    assert everyone.fpir / vip.fpir == pytest.approx(2, rel=0.05)
    assert everyone.fpir / fraud.fpir == pytest.approx(20, rel=0.05)
    rest = gallery.identify(embedding=probe, not_groups=["fraud"])[0]
    counted = [
        gallery._gallery.count_callers(scope) for scope in (Scope(("fraud",)), Scope(None, ("fraud",)))
    ]
    assert counted == [20, 380]
    assert rest.caller_id != "c040"


@over_http
def test_a_watch_hit_is_independent_of_the_answer(gallery: OpusAgentVoiceRecognizer) -> None:
    of_fraud, of_none = probe_of(gallery, 60), probe_of(gallery, 61)
    both = gallery.identify(embedding=of_fraud, watch=["fraud", "vip"])
    assert both.accepted is not None
    assert both.accepted.caller_id == "c060"
    assert [(hit.group, hit.caller_id) for hit in both.watch_hits] == [("fraud", "c060"), ("vip", "c060")]
    fraud, vip = both.watch_hits
    assert fraud.llr == both[0].llr == vip.llr
    assert fraud.fpir is not None
    assert vip.fpir is not None
    assert both[0].fpir is not None
    assert fraud.fpir < vip.fpir < both[0].fpir
    assert fraud.target == 0.01
    for filters in (
        {"not_groups": ["fraud"]},
        {"candidates": ["c001"]},
        {"ignore": ["c060"]},
        {"groups": []},
    ):
        found = gallery.identify(embedding=of_fraud, watch=["fraud"], **filters)
        assert "c060" not in {match.caller_id for match in found}
        assert [hit.caller_id for hit in found.watch_hits] == ["c060"]
    assert gallery.identify(embedding=of_none, watch=["fraud"]).watch_hits == ()
    assert gallery.identify(embedding=of_fraud).watch_hits == ()


def test_a_watched_group_has_a_target_of_its_own(gallery: OpusAgentVoiceRecognizer) -> None:
    strangers = GalleryModel.load().recordings(
        GalleryModel.load().voices(60, np.random.default_rng(9)), np.random.default_rng(10)
    )

    def count(target: float) -> int:
        gallery.config.watch_targets = {"fraud": target}
        answers = [gallery.identify(embedding=one, watch=["fraud"]) for one in strangers]
        assert all(
            hit.target == target and (hit.fpir or 0) <= target for a in answers for hit in a.watch_hits
        )
        return sum(bool(answer.watch_hits) for answer in answers)

    try:
        assert count(0.0001) == 0
        assert 5 < count(0.3) < 40
    finally:
        gallery.config.watch_targets = {}


@over_http
def test_verify_match_and_streams_watch_too(
    gallery: OpusAgentVoiceRecognizer, caplog: pytest.LogCaptureFixture
) -> None:
    claim = gallery.verify_caller("c001", embedding=probe_of(gallery, 60), watch=["fraud"])
    assert not claim.accepted
    assert [hit.caller_id for hit in claim.watch_hits] == ["c060"]
    with caplog.at_level(logging.WARNING):
        match = gallery.match_caller(embedding=probe_of(gallery, 60), watch=["fraud"], not_groups=["fraud"])
    assert match is None
    assert "watched group 'fraud'" in caplog.text
    assert not re.search(
        r"\bc060\b", caplog.text
    )  # the id of the store, in hexadecimal, may hold these letters


def test_a_stream_searches_groups_and_reports_hits(voices: Any) -> None:
    recognizer = enrolled(voices, ("amara", "bruno", "carlo", "dario"))
    recognizer.add_to_group("amara", "fraud")
    recognizer.add_to_group("bruno", "vip")
    for filters, name in (({}, "amara"), ({"groups": ["vip"]}, "bruno"), ({"not_groups": ["fraud"]}, None)):
        with recognizer.stream(sample_rate=RATE, watch=["fraud"], **filters) as stream:
            for start_at in range(0, len(voices["amara"][2]), 4_000):
                stream.feed(voices["amara"][2][start_at : start_at + 4_000])
            answer = stream.finish()
        assert answer.caller_id == name if name else answer.caller_id != "amara"
        assert answer.accepted == (name == "amara")
        assert [hit.caller_id for hit in answer.watch_hits] == ["amara"]
        (voice,) = recognizer.identify(voices["amara"][2], separate=True, watch=["fraud"], **filters)
        assert [hit.caller_id for hit in voice.watch_hits] == ["amara"]


def test_a_watched_group_of_nobody_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    with OpusAgentVoiceRecognizer(MemoryStorage()) as recognizer, caplog.at_level(logging.WARNING):
        recognizer.enroll_caller("c1", embedding=unit(1), groups=["fraud"])
        for _ in range(3):
            recognizer.identify(embedding=unit(2), watch=["fruad", "fraud"])
    assert caplog.text.count("nobody is in the watched group 'fruad'") == 1
    assert "'fraud'" not in caplog.text


# The verbs


@pytest.mark.parametrize(
    "wrong",
    [{"groups": "vip"}, {"groups": [3]}, {"not_groups": [""]}, {"watch": "fraud"}, {"watch": [" vip"]},
     {"not_groups": None}],
)  # fmt: skip
@over_http
def test_wrong_names_of_groups_are_refused(gallery: OpusAgentVoiceRecognizer, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"[Gg]roup"):
        gallery.identify(embedding=unit(1), **wrong)


@over_http
def test_groups_are_listed_with_their_members(reached: Reached) -> None:
    with OpusAgentVoiceRecognizer(MemoryStorage()) as opened:
        recognizer = reached(opened)
        assert recognizer.groups() == {}
        for name, groups in (("c1", ["vip", "home"]), ("c2", ["vip"]), ("c3", [])):
            recognizer.enroll_caller(name, embedding=unit(1), groups=groups)
            recognizer.enroll_caller(name, embedding=unit(2))
        assert recognizer.groups() == {"home": 1, "vip": 2}
        assert [caller.caller_id for caller in recognizer.members("vip")] == ["c1", "c2"]
        assert list(recognizer.members("nobody's")) == []
        assert recognizer.set_groups("c1", ["gold"]).groups == ("gold",)
        assert recognizer.remove_from_group("c2", "vip", "gold").groups == ()
        assert recognizer.groups() == {"gold": 1}
        with pytest.raises(CallerNotFoundError):
            recognizer.add_to_group("nobody", "vip")
        with pytest.raises(InvalidArgumentError):
            recognizer.set_groups("c1", "gold")
