"""The commands on a store with voiceprints of several encoders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stores import voiceprint
from tiny_models import write_tiny_model

from voiceprint import JSONStorage, SQLiteStorage
from voiceprint.storage import digest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder of its own, where the default store lies."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def filled() -> None:
    """amara is enrolled with the default encoder and with an old one, bruno with the former, zoe with the
    latter."""
    with JSONStorage("voiceprints.json") as store:
        store.save_many([voiceprint("amara", 1), voiceprint("bruno", 2)])
        store.save_many([voiceprint("amara", 3, encoder="old"), voiceprint("zoe", 4, encoder="old")])


@pytest.mark.usefixtures("filled")
def test_pruning_a_space_counts_first_and_keeps_callers_without_another(run):
    code, out, _ = run("prune", "--space", "old")
    assert code == 0
    assert out.splitlines()[:2] == [
        "1 voiceprint of the space 'old', of 1 caller: would be deleted. Nothing was changed (--delete).",
        "1 caller without voiceprints of another encoder keeps theirs: enroll them with another encoder "
        "first, or delete them too (--delete-callers).",
    ]
    assert out.splitlines()[3].strip() == "zoe"
    _, out, _ = run("prune", "--space", "old", "--delete-callers", "--json")
    assert json.loads(out) == {
        "deleted": False,
        "encoder": "old",
        "voiceprints": 2,
        "callers": 1,
        "deleted_callers": ["zoe"],
        "kept_callers": [],
    }
    _, out, _ = run("prune", "--space", "old", "--delete")
    assert out.startswith("Deleted 1 voiceprint of the space 'old', of 1 caller.")
    assert run("callers", "show", "zoe")[0] == 0
    _, out, _ = run("prune", "--space", "old", "--delete-callers", "--delete")
    assert out == (
        "Deleted 1 voiceprint of the space 'old', of 1 caller, 1 of them with no others and deleted as a "
        "whole.\n"
    )
    assert run("callers", "show", "zoe")[0] == 1
    assert run("callers", "show", "amara")[0] == 0


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("filled")
def test_pruning_refuses_the_space_that_callers_move_to(run, tmp_path, monkeypatch):
    model = write_tiny_model(tmp_path / "model.onnx", 192)
    monkeypatch.setenv("VOICE_ENCODER", f"onnx:{model}")
    monkeypatch.setenv("VOICE_ENCODER_SECONDARY", "onnx")
    code, _, err = run("prune", "--space", "resemblyzer", "--delete")
    assert (code, "unset VOICE_ENCODER_SECONDARY first" in err) == (2, True)
    assert run("callers", "show", "amara")[0] == 0


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("filled")
def test_pruning_refuses_the_space_in_use_and_options_that_do_not_go_together(run):
    assert "1 of the space" not in run("prune", "--space", "resemblyzer", "--delete")[1]
    code, _, err = run("prune", "--space", "resemblyzer", "--delete")
    assert (code, "set VOICE_ENCODER" in err) == (2, True)
    assert run("callers", "show", "amara")[0] == 0
    code, _, err = run("prune", "--space", "missing")
    assert (code, "no voiceprints of the space 'missing'" in err) == (2, True)
    for options in (
        [],
        ["--space", "x", "--not-seen-for", "3y"],
        ["--not-seen-for", "3y", "--delete-callers"],
    ):
        assert run("prune", *options)[0] == 2


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("filled")
def test_spaces_shows_how_many_callers_each_encoder_covers(run):
    code, out, _ = run("spaces")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["resemblyzer", "256", "2", "2", "67", "%", "1", "VOICE_ENCODER"],
        ["old", "8", "2", "2", "67", "%", "1"],
    ]
    assert out.splitlines()[-1].startswith("3 callers in json:")
    _, out, _ = run("spaces", "--json")
    first, second = json.loads(out)
    assert first == {
        "encoder": "resemblyzer",
        "dimension": 256,
        "voiceprints": 2,
        "callers": 2,
        "only": 1,
        "share": 2 / 3,
        "use": "primary",
    }
    assert (second["encoder"], second["use"]) == ("old", None)


@pytest.mark.resemblyzer
def test_spaces_of_an_empty_store_shows_the_encoder_that_is_set(run):
    assert run("spaces")[0] == 2
    code, out, _ = run("spaces", "--create")
    assert code == 0
    assert out.splitlines()[1].split() == ["resemblyzer", "256", "0", "0", "0", "%", "0", "VOICE_ENCODER"]


@pytest.mark.usefixtures("filled")
def test_the_list_of_callers_has_those_with_or_without_an_encoder(run):
    def listed(*options: str) -> list[str]:
        code, out, _ = run("callers", "list", "--json", *options)
        assert code == 0
        return [caller["caller_id"] for caller in json.loads(out)]

    assert listed() == ["amara", "bruno", "zoe"]
    assert listed("--space", "old") == ["amara", "zoe"]
    assert listed("--without-space", "resemblyzer") == ["zoe"]
    assert listed("--space", "resemblyzer", "--without-space", "old") == ["bruno"]
    assert listed("--space", "old", "--limit", "1") == ["amara"]
    assert run("callers", "list", "--space", "missing")[1] == "No caller is like that.\n"


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("filled")
def test_index_status_shows_the_snapshot_of_every_encoder(run):
    assert run("index", "rebuild")[0] == 0
    code, out, err = run("index", "status")
    assert code == 0
    rows = [line.split(maxsplit=3) for line in out.splitlines() if line.startswith(("resemblyzer", "old"))]
    assert [(row[0], row[1], row[3].strip()) for row in rows] == [
        ("resemblyzer", "2", "current"),
        ("old", "2", "not written yet"),
    ]
    assert all(row[2].endswith(".index") for row in rows)
    assert "1 of 3 callers have no voiceprint of the encoder 'resemblyzer'" in err
    _, out, _ = run("index", "status", "--json")
    assert [(one["encoder"], one["state"]) for one in json.loads(out)["spaces"]] == [
        ("resemblyzer", "current"),
        ("old", "not_written"),
    ]


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("filled")
def test_no_warning_is_given_once_every_caller_is_enrolled_with_the_encoder(run):
    assert "1 of 3 callers" in run("check")[2]
    with JSONStorage("voiceprints.json") as store:
        store.save(voiceprint("zoe", 5))
    assert run("check")[2] == ""
    assert run("index", "status")[2] == ""


@pytest.mark.usefixtures("filled")
def test_exports_backups_and_copies_have_the_voiceprints_of_every_encoder(run):
    for command in (
        ["export", "x.jsonl"],
        ["import", "x.jsonl", "--store", "sqlite:imported.db"],
        ["backup", "x.backup"],
        ["restore", "x.backup", "--store", "sqlite:restored.db"],
        ["copy", "--from", "json:voiceprints.json", "--to", "sqlite:copied.db"],
    ):
        assert run(*command)[0] == 0
    with JSONStorage("voiceprints.json") as store:
        wanted = digest(store)
    for name in ("imported", "restored", "copied"):
        with SQLiteStorage(f"{name}.db") as store:
            assert digest(store) == wanted
            assert store.spaces() == {"resemblyzer": 2, "old": 2}
