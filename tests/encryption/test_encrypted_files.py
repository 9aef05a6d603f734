"""Encrypted files: whole or refused, under their key or passphrase alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from encryption_keys import text_key
from stores import unit, voiceprint

from voiceprint import JSONStorage, SQLiteStorage, StorageCorruptError
from voiceprint.errors import EncryptionKeyError, InvalidArgumentError
from voiceprint.privacy.encryption import KeyRing, SealedFiles
from voiceprint.privacy.encryption.files import CHUNK
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.storage import digest
from voiceprint.storage.backup import back_up, read_backup, restore
from voiceprint.storage.sealing import SealedFileError
from voiceprint.storage.transfer import export_callers, exported_lines, import_callers

KIND = b"VPTESTED"
KEYS = SealedFiles(keys=KeyRing(VariableKeys(text_key())))


def write(path: Path, content: bytes, cipher: SealedFiles = KEYS) -> None:
    with path.open("wb") as stream, cipher.writing(stream, KIND) as inner:
        for at in range(0, len(content), 70_001):
            inner.write(content[at : at + 70_001])


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_content_of_any_size_comes_back_from_files_and_pipes(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    write(tmp_path / "file", content)
    with (tmp_path / "file").open("rb") as stream, KEYS.reading(stream, KIND) as inner:
        assert inner.read() == content
        assert inner.seek(size // 2) == size // 2
        assert inner.read(100) == content[size // 2 :][:100]
        assert inner.seek(0, os.SEEK_END) == size
        assert inner.read() == b""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with KEYS.reading(Pipe((tmp_path / "file").read_bytes()), KIND) as inner:
        assert inner.read() == content
        assert not inner.seekable()
    assert content[:32] not in (tmp_path / "file").read_bytes() or size < 32


@pytest.mark.parametrize("cut", [0, 5, 20, 40, CHUNK, CHUNK + 16, 2 * (CHUNK + 16) + 66])
def test_a_file_that_was_cut_off_does_not_open(cut: int, tmp_path: Path) -> None:
    write(tmp_path / "file", os.urandom(2 * CHUNK + 9))
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:cut])
    with (tmp_path / "file").open("rb") as stream, pytest.raises((SealedFileError, EncryptionKeyError)):
        KEYS.reading(stream, KIND)


def test_chunks_that_changed_places_and_every_flipped_byte_of_the_head_are_found(tmp_path: Path) -> None:
    write(tmp_path / "file", os.urandom(3 * CHUNK))
    whole = (tmp_path / "file").read_bytes()
    head = len(whole) - 3 * (CHUNK + 16)
    first, second = whole[head : head + CHUNK + 16], whole[head + CHUNK + 16 : head + 2 * (CHUNK + 16)]
    swapped = whole[:head] + second + first + whole[head + 2 * (CHUNK + 16) :]
    (tmp_path / "file").write_bytes(swapped)
    with (tmp_path / "file").open("rb") as stream, pytest.raises(SealedFileError):
        KEYS.reading(stream, KIND).read()
    for at in range(head):
        broken = bytearray(whole)
        broken[at] ^= 1
        with pytest.raises((SealedFileError, EncryptionKeyError)):
            KEYS.reading(io.BytesIO(broken), KIND)


def test_a_passphrase_opens_its_file_and_another_one_does_not(tmp_path: Path) -> None:
    write(tmp_path / "file", b"content", SealedFiles(passphrase=lambda: "correct horse"))
    content = (tmp_path / "file").read_bytes()
    right, wrong = (SealedFiles(passphrase=lambda text=text: text) for text in ("correct horse", "wrong"))
    with (tmp_path / "file").open("rb") as stream:
        assert right.reading(stream, KIND).read() == b"content"
    with pytest.raises(EncryptionKeyError, match="not that of the file"):
        wrong.reading(io.BytesIO(content), KIND)
    with pytest.raises(EncryptionKeyError, match="with a passphrase"):
        KEYS.reading(io.BytesIO(content), KIND)


def test_a_forged_head_cannot_ask_for_endless_work(tmp_path: Path) -> None:
    write(tmp_path / "file", b"content", SealedFiles(passphrase=lambda: "correct horse"))
    content = bytearray((tmp_path / "file").read_bytes())
    content[len(KIND) + 2 + 16] = 60  # log2 N
    with pytest.raises(SealedFileError, match="out of range"):
        SealedFiles(passphrase=lambda: "correct horse").reading(io.BytesIO(content), KIND)


def test_another_master_key_and_none_are_named(tmp_path: Path) -> None:
    write(tmp_path / "file", b"content")
    content = (tmp_path / "file").read_bytes()
    for cipher in (SealedFiles(keys=KeyRing(VariableKeys(text_key()))), SealedFiles(passphrase=str)):
        with pytest.raises(EncryptionKeyError, match="encrypted with the"):
            cipher.reading(io.BytesIO(content), KIND)
    with pytest.raises(SealedFileError, match="of this kind"):
        KEYS.reading(io.BytesIO(content), b"VPOTHERS")


def test_a_backup_is_encrypted_verified_and_restored_with_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "callers.backup"
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        storage.save_many([voiceprint("alice", 1, metadata={"name": "Alice Liddell"}), voiceprint("bob", 2)])
        report = back_up(storage, path, cipher=KEYS)
        wanted = digest(storage)
    assert b"Alice Liddell" not in path.read_bytes()
    assert read_backup(path, cipher=KEYS) == report
    with JSONStorage(tmp_path / "new.json") as target:
        for cipher in (None, SealedFiles(keys=KeyRing(VariableKeys(text_key())))):
            with pytest.raises(EncryptionKeyError):
                restore(target, path, cipher=cipher)
        assert not target.exists()
        restore(target, path, cipher=KEYS)
        assert digest(target) == wanted
    path.write_bytes(path.read_bytes()[:-1])
    with JSONStorage(tmp_path / "other.json") as target:
        with pytest.raises(StorageCorruptError, match="cut off"):
            restore(target, path, cipher=KEYS)
        assert not target.exists()


def test_an_export_is_encrypted_and_imported_with_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "callers.jsonl"
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        storage.save(voiceprint("alice", 1, metadata={"name": "Alice Liddell"}))
        with path.open("wb") as stream, KEYS.writing(stream, b"VPEXPORT") as inner:
            export_callers(storage, inner)
    assert b"Alice" not in path.read_bytes()
    with JSONStorage(tmp_path / "new.json") as target:
        with path.open("rb") as stream, pytest.raises(EncryptionKeyError, match="is encrypted"):
            import_callers(target, exported_lines(stream, "callers.jsonl"))
        assert not target.exists()
        with path.open("rb") as stream:
            import_callers(target, exported_lines(stream, "callers.jsonl", KEYS))
        assert target.get_all()[0].embedding.tobytes() == unit(1).tobytes()
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as stream, pytest.raises(InvalidArgumentError, match="is damaged"):
        list(exported_lines(stream, "callers.jsonl", KEYS))
