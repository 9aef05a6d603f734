"""An exported index: another machine starts from it without reading the store, and believes no other file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from encryption_keys import encryption
from galleries import best
from postgres_server import fresh_url
from stores import unit, voiceprint

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    Storage,
    VoiceFingerprintConfig,
)
from voiceprint.index import VectorIndex
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.key_store import KeyStore
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.storage import SQLStorage

COUNT = 300
Node = Callable[..., OpusAgentVoiceRecognizer]


@pytest.fixture(params=["sqlite", "postgresql"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A machine with an index and a snapshot of its own, over the one store."""
    url = fresh_url() if request.param == "postgresql" else None
    opened: list[OpusAgentVoiceRecognizer] = []

    def node(name: str, key: Encryption | None = None) -> OpusAgentVoiceRecognizer:
        storage: Storage = (
            SQLiteStorage(tmp_path / "store", encryption=key)
            if url is None
            else SQLStorage(url, encryption=key)
        )
        config = VoiceFingerprintConfig(index_path=tmp_path / f"{name}.index")
        opened.append(OpusAgentVoiceRecognizer(storage, config=config))
        return opened[-1]

    yield node
    for recognizer in opened:
        recognizer.close()


def fill(recognizer: OpusAgentVoiceRecognizer) -> None:
    recognizer.storage.save_many([voiceprint(f"c{n}", n) for n in range(COUNT)])


def named(recognizer: OpusAgentVoiceRecognizer, *seeds: int) -> list[str | None]:
    """The ids of the callers with these seeds' voices; None for a voice without a caller."""
    answers = [best(recognizer._gallery, unit(seed), 1) for seed in seeds]
    return [a[0].caller_id if a and a[0].similarity > 0.99 else None for a in answers]


def never_built(recognizer: OpusAgentVoiceRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when the index of this node is built from the store."""

    def scan(**_: Any) -> None:
        pytest.fail("the index is built anew")

    monkeypatch.setattr(recognizer.storage, "scan", scan)


def test_another_machine_starts_from_an_export_and_takes_in_what_changed_since(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node("one")
    fill(one)
    file = tmp_path / "exported"
    assert one.export_index(file).vectors == COUNT
    assert file.stat().st_mode & 0o777 == 0o600
    one.storage.delete("c3")
    one.storage.save(voiceprint("new", 1000))
    other = node("other")
    never_built(other, monkeypatch)
    assert other.import_index(file).vectors == COUNT
    assert named(other, 0, 3, 7, 1000) == ["c0", None, "c7", "new"]
    assert [status.state for status in other.snapshots()] == ["current"]
    one.storage.delete("c7")
    assert named(other, 7, 8) == [None, "c8"]


def test_an_import_takes_the_place_of_an_index_that_is_there(node: Node, tmp_path: Path) -> None:
    one, other = node("one"), node("other")
    fill(one)
    one.export_index(tmp_path / "exported")
    other._gallery.refresh().remove(other._gallery.refresh().ids()[:10])  # as by a fault of the machine
    assert [finding.code for finding in other.check()] == ["not_indexed"] * 10
    other.import_index(tmp_path / "exported")
    assert other.check() == []


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def of_another_encoder(file: Path) -> None:
    index = VectorIndex.load(file)
    index.save(file, stamp=index.stamp | {"encoder": "another"})


def of_another_store(file: Path) -> None:
    index = VectorIndex.load(file)
    index.save(file, stamp=index.stamp | {"store": "another"})


def of_another_history(file: Path) -> None:
    index = VectorIndex.load(file)
    index.save(file, stamp=index.stamp | {"token": "another"})


def without_a_stamp(file: Path) -> None:
    VectorIndex.load(file).save(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damaged, "is damaged.*Export it anew"),
        (of_another_encoder, "another store or encoder.*Export it anew"),
        (of_another_store, "another store or encoder.*Export it anew"),
        (
            of_another_history,
            "older than the change feed of the store, or the store was rewound: export it again",
        ),
        (without_a_stamp, "does not name its store.*Export it anew"),
        (lambda file: file.write_text("{}" * 100), "is not an index snapshot.*Export it anew"),
        (lambda file: file.unlink(), "cannot be read: No such file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_the_index_stays(
    node: Node, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    one = node("one")
    fill(one)
    file = tmp_path / "exported"
    one.export_index(file)
    one.storage.delete("c3")
    change(file)
    with pytest.raises(InvalidArgumentError, match=said):
        one.import_index(file)
    assert named(one, 0, 3) == ["c0", None]
    assert one.check() == []


def test_an_export_replaces_no_other_file(node: Node, tmp_path: Path) -> None:
    one = node("one")
    fill(one)
    (tmp_path / "letter").write_text("Dear reader")
    with pytest.raises(InvalidArgumentError, match="is not an index snapshot: choose another"):
        one.export_index(tmp_path / "letter")
    assert (tmp_path / "letter").read_text() == "Dear reader"
    with pytest.raises(InvalidArgumentError, match="cannot be written"):
        one.export_index(tmp_path / "letter" / "inside")
    if (tmp_path / "store").exists():
        with pytest.raises(InvalidArgumentError, match="belongs to the store"):
            one.export_index(tmp_path / "store")
    one.export_index(tmp_path / "exported")
    one.storage.save(voiceprint("new", 1000))
    assert one.export_index(tmp_path / "exported").vectors == COUNT + 1


def test_the_export_of_an_encrypted_store_is_encrypted(node: Node, tmp_path: Path) -> None:
    key, file = encryption(), tmp_path / "exported"
    one = node("one", key)
    fill(one)
    one.export_index(file)
    content = file.read_bytes()
    for part in (b"resemblyzer", one.storage.identity().encode(), unit(7).astype("<f2").tobytes()[:16]):
        assert part not in content
    other = node("other", key)
    assert other.import_index(file).vectors == COUNT
    assert named(other, 7) == ["c7"]
    plain = VectorIndex(256)
    plain.add([1], [unit(1)])
    plain.save(tmp_path / "plain", stamp={"store": one.storage.identity()})
    with pytest.raises(InvalidArgumentError, match="cannot be imported"):
        other.import_index(tmp_path / "plain")


def test_a_store_whose_data_keys_are_kept_apart_exports_no_index(tmp_path: Path) -> None:
    apart = Encryption(KeyRing(VariableKeys("K" * 43 + "=")), KeyStore(str(tmp_path / "keys.db")))
    with OpusAgentVoiceRecognizer(SQLiteStorage(tmp_path / "store", encryption=apart)) as one:
        fill(one)
        with pytest.raises(ConfigurationError, match="let each node build its index"):
            one.export_index(tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_without_a_place_for_the_snapshot_nothing_is_imported(tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(index_path="off")
    with OpusAgentVoiceRecognizer(SQLiteStorage(tmp_path / "store"), config=config) as one:
        fill(one)
        one.export_index(tmp_path / "exported")
        with pytest.raises(ConfigurationError, match="set VOICE_INDEX_PATH"):
            one.import_index(tmp_path / "exported")


def test_an_export_is_an_event_of_the_audit_log(tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(audit=tmp_path / "audit.jsonl")
    with OpusAgentVoiceRecognizer(SQLiteStorage(tmp_path / "store"), config=config) as one:
        fill(one)
        one.export_index(tmp_path / "exported")
    last = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert (last["action"], last["detail"], last["file"], last["count"]) == (
        "export",
        "index",
        "exported",
        COUNT,
    )


def test_the_commands_carry_an_index_to_another_machine(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with SQLiteStorage("callers.db") as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(COUNT)])
    store = ("--store", "sqlite:callers.db")
    code, out, _ = run("index", "export", "carried", *store)
    assert code == 0
    assert "the index of 300 voiceprints to carried" in out
    assert "Remove it once it is imported" in out
    code, out, _ = run("index", "export", "carried", *store, "--json")
    shown = json.loads(out)
    assert (shown["vectors"], shown["file_bytes"]) == (COUNT, Path("carried").stat().st_size)
    monkeypatch.setenv("VOICE_INDEX_PATH", "other.index")
    code, out, _ = run("index", "import", "carried", *store, "--json")
    assert code == 0
    shown = json.loads(out)
    assert (shown["vectors"], shown["snapshot"]) == (COUNT, "other.index")
    assert Path("other.index").stat().st_size == shown["snapshot_bytes"]
    code, _, err = run("index", "import", "callers.db", *store)
    assert code == 2
    assert "Traceback" not in err
