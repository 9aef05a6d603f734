"""Master keys come from a file, a variable or a command, and no message shows them."""

from __future__ import annotations

import base64
import logging
import stat
import sys
from pathlib import Path

import pytest
from encryption_keys import encryption, file_encryption, text_key

from voiceprint import ConfigurationError, VoiceFingerprintConfig
from voiceprint.errors import EncryptionKeyError
from voiceprint.privacy.encryption import Encryption, KeyRing, new_key_file, primitives
from voiceprint.privacy.encryption.keys import CommandKeys, FileKeys, VariableKeys
from voiceprint.storage.sealing import SealingError, place


def ids(config: VoiceFingerprintConfig) -> list[str]:
    ring = KeyRing.from_config(config)
    assert ring is not None
    return ring.ids()


def test_a_file_a_variable_and_a_command_give_the_same_key(tmp_path: Path) -> None:
    key_id = new_key_file(tmp_path / "key")
    text = (tmp_path / "key").read_text().splitlines()[-1]
    script = f"print({text!r})"
    assert ids(VoiceFingerprintConfig(encryption_key_file=tmp_path / "key")) == [key_id]
    assert ids(VoiceFingerprintConfig(encryption_key=text)) == [key_id]
    assert ids(VoiceFingerprintConfig(encryption_key_command=f'{sys.executable} -c "{script}"')) == [key_id]
    assert KeyRing.from_config(VoiceFingerprintConfig()) is None


def test_a_new_key_file_is_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    new_key_file(path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="is there already"):
        new_key_file(path)
    assert path.read_bytes() == before
    with pytest.raises(ConfigurationError, match="cannot be written"):
        new_key_file(tmp_path / "no" / "key")


def test_two_settings_of_a_key_are_refused(tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(encryption_key=text_key(), encryption_key_file=tmp_path / "key")
    with pytest.raises(ConfigurationError, match="KEY_FILE and VOICE_ENCRYPTION_KEY are set"):
        KeyRing.from_config(config)


@pytest.mark.parametrize("text", ["", "# only a comment", "not base64!", base64.b64encode(b"short").decode()])
def test_a_bad_key_is_refused_and_not_quoted(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        FileKeys(tmp_path / "key").read()
    assert str(tmp_path / "key") in str(caught.value)
    if text and not text.startswith("#"):
        assert text not in str(caught.value)
        assert "in place 1" in str(caught.value)


def test_a_command_is_run_without_a_shell_and_its_output_is_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a-secret-that-is-no-key"
    command = f"{sys.executable} -c \"print('{secret}'); import sys; sys.exit(3)\""
    with pytest.raises(ConfigurationError, match="ended with the status 3") as caught:
        CommandKeys(command).read()
    assert secret not in f"{caught.value}{caplog.text}{capfd.readouterr()}"
    with pytest.raises(ConfigurationError, match="cannot be run"):
        CommandKeys(f"{tmp_path}/no-such-program | cat").read()
    with pytest.raises(ConfigurationError, match="is empty"):
        CommandKeys(" ")
    with pytest.raises(ConfigurationError, match="cannot be split"):
        CommandKeys("'unbalanced")
    marker = tmp_path / "made-by-a-shell"
    with pytest.raises(ConfigurationError):
        CommandKeys(f"/bin/echo x; touch {marker}").read()
    assert not marker.exists()


def test_no_repr_and_no_message_of_the_settings_shows_a_key() -> None:
    key = text_key()
    config = VoiceFingerprintConfig(encryption_key=key)
    assert key not in repr(config)
    with pytest.raises(ConfigurationError, match="VOICE_ENCRYPTION_KEY is not shown"):
        VoiceFingerprintConfig(encryption_key=[key])
    ring = KeyRing(VariableKeys(key))
    assert key not in f"{ring!r} {ring.current!r}"


def test_a_missing_file_and_one_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileKeys(tmp_path / "key").read()
    new_key_file(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    FileKeys(tmp_path / "key").read()
    assert "can be read by other users" in caplog.text


def test_a_key_file_that_gets_a_new_key_is_followed_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "key"
    new_key_file(path)
    running, changing = file_encryption(path), FileKeys(path)
    old = running.new_keys("store", ["alice"])[0]
    changing.add()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    new = running.new_keys("store", ["alice"])[0]
    assert Encryption.key_id(new) != Encryption.key_id(old)
    assert running.rewrap("store", "alice", new) is None
    again = running.rewrap("store", "alice", old)
    assert again is not None
    sealed = running.open_key("store", "alice", old).seal(b"data", place("details"))
    assert running.open_key("store", "alice", again).open(sealed, place("details")) == b"data"


def test_a_data_key_opens_for_its_store_its_caller_and_its_master_key_alone() -> None:
    mine = encryption()
    wrapped = mine.new_keys("store", ["alice"])[0]
    mine.open_key("store", "alice", wrapped)
    for store, caller_id in (("store", "bob"), ("other", "alice")):
        with pytest.raises(SealingError):
            mine.open_key(store, caller_id, wrapped)
    with pytest.raises(SealingError):
        mine.open_key("store", "alice", wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    with pytest.raises(SealingError):
        mine.open_key("store", "alice", b"")
    with pytest.raises(EncryptionKeyError, match=mine.key_id(wrapped).hex()):
        encryption().open_key("store", "alice", wrapped)


def test_a_field_opens_at_its_place_alone() -> None:
    mine = encryption()
    key = mine.open_key("store", "alice", mine.new_keys("store", ["alice"])[0])
    sealed = key.seal(b"data", place("embedding", 1, "space"))
    assert key.open(sealed, place("embedding", 1, "space")) == b"data"
    for other in (place("augmented", 1, "space"), place("embedding", 2, "space"), place("embedding", 1, "x")):
        with pytest.raises(SealingError):
            key.open(sealed, other)
    assert key.seal(b"data", place("details")) != key.seal(b"data", place("details"))


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    primitives._aes_gcm.cache_clear()
    with pytest.raises(ConfigurationError, match=r"pip install 'opusagent-voiceprint\[encryption\]'"):
        primitives.AuthenticatedCipher(bytes(32))


@pytest.mark.parametrize("setting", ["audit", "encryption_key_file", "index_path", "storage_path"])
def test_a_null_byte_in_a_path_is_an_error_that_names_the_setting(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"VOICE_{setting.upper()} is "):
        VoiceFingerprintConfig(**{setting: "a\0b"})
    config = VoiceFingerprintConfig()
    with pytest.raises(ConfigurationError, match=f"VOICE_{setting.upper()} is "):
        setattr(config, setting, "a\0b")


def test_a_null_byte_in_the_path_of_a_key_file_is_an_error_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="null byte"):
        FileKeys("a\0b")
    with pytest.raises(ConfigurationError, match="null byte"):
        new_key_file("a\0b")
