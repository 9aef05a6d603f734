"""The commands on a store with voiceprints of several encoders."""

from __future__ import annotations

import json

import pytest
from stores import voiceprint

from voiceprint import JSONStorage


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
