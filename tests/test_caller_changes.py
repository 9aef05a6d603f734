"""Everyday hands of the recognizer: rename, merge, update and find callers, delete one voiceprint."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from over_http import over_http
from stores import unit
from voices import SAMPLES, Voices

from voiceprint import (
    CallerNotFoundError,
    Consent,
    InvalidArgumentError,
    JSONStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    SQLiteStorage,
    Voiceprint,
)


@pytest.fixture
def known(quick: OpusAgentVoiceRecognizer, voices: Voices) -> OpusAgentVoiceRecognizer:
    """A recognizer with two callers, whose index is built."""
    quick.enroll_caller("amara", voices["amara"][0], {"plan": "gold", "since": 2020})
    quick.enroll_caller("bruno", voices["bruno"][0], {"plan": "silver", "city": "Bonn"})
    assert quick.match_caller(voices["amara"][1]) is not None
    return quick


@over_http
def test_a_renamed_caller_is_matched_under_the_new_id(
    known: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    renamed = known.rename_caller("amara", "customer-1")
    assert (renamed.caller_id, renamed.metadata) == ("customer-1", {"plan": "gold", "since": 2020})
    match = known.match_caller(voices["amara"][1])
    assert match is not None
    assert match[0] == "customer-1"
    assert known.get_caller("amara") is None
    with pytest.raises(InvalidArgumentError, match="already"):
        known.rename_caller("customer-1", "bruno")
    with pytest.raises(CallerNotFoundError):
        known.rename_caller("amara", "other")
    assert known.check() == []


@over_http
def test_a_merge_says_which_voiceprints_gave_way(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    ids = [
        quick.enroll_caller(name, voices["amara"][n], {"n": n, name: True}).id
        for n, name in enumerate(["old", "amara", "old", "amara"])
    ]
    caller, removed = quick.merge_callers("old", "amara")
    assert removed == [ids[0]]
    assert caller == quick.get_caller("amara")
    assert len(caller.voiceprints) == 3
    assert caller.metadata == {"n": 3, "amara": True, "old": True}
    match = quick.match_caller(voices["amara"][0])
    assert match is not None
    assert match[0] == "amara"
    assert quick.check() == []


@over_http
def test_the_limit_of_a_merge_is_that_of_the_settings(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    quick.config.max_voiceprints_per_caller = 1
    quick.enroll_caller("old", voices["amara"][0])
    last = quick.enroll_caller("amara", voices["amara"][1]).id
    caller, removed = quick.merge_callers("old", "amara")
    assert [print_.id for print_ in caller.voiceprints] == [last]
    assert len(removed) == 1


@over_http
def test_a_deleted_voiceprint_is_matched_no_more_and_its_caller_stays(
    known: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    caller = known.get_caller("amara")
    assert caller is not None
    (print_,) = caller.voiceprints
    assert print_.id is not None
    assert known.delete_voiceprint(print_.id)
    assert not known.delete_voiceprint(print_.id)
    assert known.match_caller(voices["amara"][1]) is None
    left = known.get_caller("amara")
    assert left is not None
    assert (left.voiceprints, left.metadata) == ((), caller.metadata)
    assert known.check() == []


@over_http
def test_metadata_is_merged_or_replaced_and_found(known: OpusAgentVoiceRecognizer) -> None:
    assert known.update_metadata("amara", {"vip": True}).metadata == {
        "plan": "gold",
        "since": 2020,
        "vip": True,
    }
    assert [one.caller_id for one in known.find_callers({"vip": True})] == ["amara"]
    assert known.find_callers({"vip": 1}) == []
    assert known.update_metadata("amara", {"plan": "tin"}, replace=True).metadata == {"plan": "tin"}
    known.update_metadata("bruno", {"plan": "tin"})
    assert [one.caller_id for one in known.find_callers({"plan": "tin"}, limit=1)] == ["amara"]
    assert [one.caller_id for one in known.find_callers({"plan": "tin"}, after="amara")] == ["bruno"]
    with pytest.raises(CallerNotFoundError):
        known.update_metadata("nobody", {})


# Provenance


def provenance(voiceprint: Voiceprint) -> tuple[Any, ...]:
    found = voiceprint.provenance
    assert found is not None
    return found.source, found.quality, found.duration_s, found.net_speech_s


@over_http
def test_a_voiceprint_keeps_the_source_that_is_given_or_the_file(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    path = SAMPLES / "amara/1.flac"
    quality = Recording.open(path).quality
    measured = quality.score, quality.duration_s, quality.net_speech_s
    assert provenance(quick.enroll_caller("a", audio, source="call-17")) == ("call-17", *measured)
    assert provenance(quick.enroll_caller("b", audio)) == (None, *measured)
    assert provenance(quick.enroll_caller("c", Recording.open(path))) == (str(path), *measured)
    named = quick.enroll_caller("d", Recording.open(path), source="call-18")
    assert provenance(named) == ("call-18", *measured)
    stored = quick.get_caller("d")
    assert stored is not None
    assert stored.voiceprints[0].provenance == named.provenance


@over_http
def test_a_source_that_is_none_is_refused_before_the_audio_is_looked_at(
    quick: OpusAgentVoiceRecognizer,
) -> None:
    for source in ("", "x" * 513, 5):
        with pytest.raises(InvalidArgumentError):
            quick.enroll_caller("a", b"", source=source)  # type: ignore[arg-type]


@over_http
def test_an_own_embedding_has_the_source_alone(quick: OpusAgentVoiceRecognizer) -> None:
    dimension = quick.encoder.dimension
    assert provenance(quick.enroll_caller("a", embedding=unit(1, dimension), source="batch 7")) == (
        "batch 7", None, None, None,
    )  # fmt: skip
    assert quick.enroll_caller("b", embedding=unit(2, dimension)).provenance is None


@over_http
def test_many_samples_have_the_names_of_their_files(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    paths = [SAMPLES / f"amara/{n}.flac" for n in (1, 2)]
    found = quick.enroll_many(
        [*[("amara", Recording.open(path), None) for path in paths], ("bruno", voices["bruno"][0], None)]
    )
    assert [provenance(one)[0] for one in found if isinstance(one, Voiceprint)] == [*map(str, paths), None]


@over_http
def test_an_enrolled_recording_keeps_its_first_provenance(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    embedding = quick.get_embedding(voices["amara"][0])
    quick.enroll_caller("amara", embedding=embedding)
    first = quick.enroll_caller("amara", voices["amara"][0], source="first")
    again = quick.enroll_caller("amara", voices["amara"][0], source="second")
    assert first.id == again.id
    assert provenance(first)[0] == provenance(again)[0] == "first"


@over_http
def test_a_name_that_is_long_or_not_utf8_is_stored_as_text(quick: OpusAgentVoiceRecognizer) -> None:
    recording = Recording.open(SAMPLES / "amara/1.flac")
    recording.name = "x" * 600 + "/\udcff.wav"
    source = provenance(quick.enroll_caller("amara", recording))[0]
    assert len(source) == 512
    assert source.endswith("x/\\xff.wav")


@over_http
def test_a_stream_takes_a_source_a_consent_and_groups(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    quick.config.require_consent = True
    with quick.stream() as session:
        session.feed(voices["amara"][0])
        stored = session.enroll(
            "amara", source="call-19", consent=Consent(purpose="authentication", version="1"), groups=["vip"]
        )
    assert provenance(stored)[0] == "call-19"
    caller = quick.get_caller("amara")
    assert caller is not None
    assert (caller.groups, caller.consent is not None) == (("vip",), True)


# The command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "sqlite")
    return tmp_path


def fill(*callers: tuple[str, dict[str, Any]]) -> None:
    with SQLiteStorage("voiceprints.db") as storage:
        storage.save_many([Voiceprint(name, unit(n), metadata) for n, (name, metadata) in enumerate(callers)])


def caller(name: str) -> Any:
    with SQLiteStorage("voiceprints.db") as storage:
        return storage.get(name)


@pytest.mark.usefixtures("folder")
def test_callers_are_found_by_typed_values_and_pages(run) -> None:
    fill(
        ("a", {"plan": "gold", "n": 1}), ("b", {"plan": "gold", "n": 1.0}), ("c", {"plan": "gold", "n": "1"})
    )
    for arguments, found in (
        (["plan=gold"], ["a", "b", "c"]),
        (["n:=1"], ["a"]),
        (["n:=1.0"], ["b"]),
        (["n=1", "plan=gold"], ["c"]),
        (["plan=gold", "--after", "a"], ["b", "c"]),
    ):
        code, out, _ = run("callers", "find", *arguments, "--json")
        assert (code, [one["caller_id"] for one in json.loads(out)]) == (0, found)
    code, out, err = run("callers", "find", "plan=gold", "--limit", 2)
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["a", "b"]
    assert "--after 'b'" in err
    assert run("callers", "find", "plan=tin")[:2] == (1, "No caller has this metadata.\n")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["find"], "has no key"),
        (["find", "plan"], "'plan' is not KEY=VALUE, nor KEY:=JSON"),
        (["find", "=x"], "is not KEY=VALUE"),
        (["find", ":=1"], "is not KEY=VALUE"),
        (["find", "n:=x"], "The value of n:= is not JSON"),
        (["find", "n:=1", "n=2"], "'n' is given twice"),
        (["find", "n:=NaN"], "NaN"),
        (["update", "a"], "Give KEY=VALUE, or --replace"),
        (["rename", "a", "b"], "There is a caller 'b' already"),
        (["merge", "a", "a", "-y"], "cannot be merged with itself"),
        (["delete", "a", "--voiceprint", "99", "-y"], "'a' has no voiceprint 99"),
        (["delete", "a", "--voiceprint", "1", "-y", "--receipt"], "without a receipt"),
    ],
)
def test_wrong_use_is_refused_and_changes_nothing(run, arguments: list[str], message: str) -> None:
    fill(("a", {"n": 1}), ("b", {}))
    before = caller("a"), caller("b")
    code, _, err = run("callers", *arguments)
    assert (code, message in err) == (2, True), err
    assert (caller("a"), caller("b")) == before


@pytest.mark.usefixtures("folder")
def test_metadata_is_updated(run) -> None:
    fill(("a", {"plan": "gold", "n": 1}))
    assert run("callers", "update", "a", "plan=tin", "vip:=true")[:2] == (0, "a has 3 metadata keys.\n")
    assert caller("a").metadata == {"plan": "tin", "n": 1, "vip": True}
    code, out, _ = run("callers", "update", "a", "n:=null", "--replace", "--json")
    assert (code, json.loads(out)["metadata"]) == (0, {"n": None})
    assert run("callers", "update", "a", "--replace")[0] == 0
    assert caller("a").metadata == {}
    assert run("callers", "update", "nobody", "a=b")[0] == 1


@pytest.mark.usefixtures("folder")
def test_callers_are_renamed_and_merged(run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(("a", {"plan": "gold"}), ("b", {}))
    assert run("callers", "rename", "a", "c")[:2] == (0, "Renamed a to c.\n")
    assert run("callers", "rename", "a", "d")[0] == 1
    assert json.loads(run("callers", "rename", "c", "d", "--json")[1])["caller_id"] == "d"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = run("callers", "merge", "b", "d")
    assert (code, "Nothing was changed." in err) == (1, True)
    monkeypatch.setenv("VOICE_MAX_VOICEPRINTS_PER_CALLER", "1")
    code, out, _ = run("callers", "merge", "b", "d", "--yes")
    assert (code, out.splitlines()[0]) == (0, "Merged b into d, who has 1 voiceprint.")
    assert out.splitlines()[1].startswith("Beyond the limit, and removed: 1 voiceprint (")
    assert caller("b") is None
    fill(("b", {}))
    merged = json.loads(run("callers", "merge", "b", "d", "--yes", "--json")[1])
    assert len(merged["removed_voiceprints"]) == 1
    assert merged["caller"]["caller_id"] == "d"
    assert run("callers", "merge", "nobody", "d", "--yes")[0] == 1


@pytest.mark.usefixtures("folder")
def test_one_voiceprint_is_deleted_after_a_yes(run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(("a", {}), ("a", {}), ("b", {}))
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("callers", "delete", "a", "--voiceprint", "1")[0] == 1
    assert len(caller("a").voiceprints) == 2
    code, out, _ = run("callers", "delete", "a", "--voiceprint", "1", "--yes")
    assert (code, out) == (0, "Deleted the voiceprint 1 of a, who has 1 voiceprint left.\n")
    assert run("callers", "delete", "a", "--voiceprint", "3", "--yes")[0] == 2, "it is b's"
    code, out, _ = run("callers", "delete", "a", "--voiceprint", "2", "--yes", "--json")
    assert json.loads(out) == {"caller_id": "a", "voiceprints_removed": 1}
    assert caller("a").voiceprints == ()
    assert len(caller("b").voiceprints) == 1


@pytest.mark.usefixtures("folder")
def test_keys_are_indexed_listed_and_dropped(run) -> None:
    assert run("db", "index-metadata", "plan")[0] == 2, "no store yet"
    fill(("a", {"plan": "gold"}))
    assert run("db", "index-metadata")[:2] == (0, "No metadata key has an index.\n")
    assert run("db", "index-metadata", "plan")[:2] == (0, "Indexed: plan\n")
    assert json.loads(run("db", "index-metadata", "n", "--json")[1]) == ["n", "plan"]
    assert run("callers", "find", "plan=gold")[0] == 0
    assert run("db", "index-metadata", "plan", "--drop")[:2] == (0, "Indexed: n\n")
    assert run("db", "index-metadata", "--drop")[0] == 2
    assert run("db", "index-metadata", 'a"b')[0] == 2
    JSONStorage("a.json").save(Voiceprint("a", unit(1)))
    code, _, err = run("db", "index-metadata", "plan", "--store", "json:a.json")
    assert (code, "is for SQL stores" in err) == (2, True)


@pytest.mark.usefixtures("folder")
def test_the_files_of_a_folder_and_of_a_manifest_are_the_sources(run) -> None:
    folder = Path("recordings/amara")
    folder.mkdir(parents=True)
    (folder / "1.flac").write_bytes((SAMPLES / "amara/1.flac").read_bytes())
    assert run("enroll-dir", "recordings")[0] == 0
    Path("m.csv").write_text(f"caller_id,path\nbruno,{SAMPLES / 'bruno/1.flac'}\n")
    assert run("enroll-csv", "m.csv", "--processes", 0)[0] == 0
    assert caller("amara").voiceprints[0].provenance.source == "recordings/amara/1.flac"
    assert caller("bruno").voiceprints[0].provenance.source == str(SAMPLES / "bruno/1.flac")
    _, out, _ = run("callers", "show", "amara")
    assert out.splitlines()[-1].split()[-6:] == ["1.00", "6.0", "s", "5.8", "s", "recordings/amara/1.flac"]
    shown = json.loads(run("callers", "show", "amara", "--json")[1])["voiceprints"][0]["provenance"]
    assert sorted(shown) == ["duration_s", "net_speech_s", "quality", "source"]
