"""Galleries: each is a store, index and settings of its own, which one file names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import redis_server
import soundfile
import typer
from stores import voiceprint
from voices import Voices

from voiceprint import (
    ConfigurationError,
    Galleries,
    GalleryNotFoundError,
    InvalidArgumentError,
    JSONStorage,
    SQLiteStorage,
    StorageError,
    VoiceFingerprintConfig,
)
from voiceprint.cli.app import app
from voiceprint.config import PATH_SETTINGS
from voiceprint.privacy.encryption.keys import new_key_file

TWO = """
[defaults]
target_fpir = 0.01
storage_backend = "sqlite"
max_voiceprints_per_caller = 4

[galleries.brand-a]
storage_path = "a/voiceprints.db"

[galleries.brand-b]
storage_backend = "json"
storage_path = "b/voiceprints.json"
max_voiceprints_per_caller = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, path: str = "voiceprint.toml") -> Path:
    Path(path).write_text(text)
    return Path(path)


def gallery(lines: str) -> Path:
    """A file of the gallery brand-a with these lines."""
    return write(f"[galleries.brand-a]\n{lines}\n")


def with_tests() -> dict[str, str]:
    """The environment of a process that imports the helpers of the tests."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


def refused(path: Path) -> str:
    """The message of the refusal of a file."""
    with pytest.raises(ConfigurationError) as caught:
        Galleries.open(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_caller_of_one_gallery_is_a_stranger_to_the_other(folder: Path, voices: Voices) -> None:
    write(TWO)
    with Galleries.open() as galleries:
        galleries["brand-a"].enroll_caller("amara", voices["amara"][0])
        galleries["brand-b"].enroll_caller("bruno", voices["bruno"][0])
        probe = voices["amara"][1]
        assert [match.caller_id for match in galleries["brand-a"].identify(probe)] == ["amara"]
        assert [match.caller_id for match in galleries["brand-b"].identify(probe)] == ["bruno"]
        assert galleries["brand-b"].get_caller("amara") is None
        paths = {galleries[name].snapshot_path() for name in galleries}
        assert paths == {
            folder / "a/voiceprints.db.index",
            folder / "b/voiceprints.json.index",
        }
    with SQLiteStorage("a/voiceprints.db") as storage:
        assert [caller.caller_id for caller in storage.callers()] == ["amara"]
    with JSONStorage("b/voiceprints.json") as storage:
        assert [caller.caller_id for caller in storage.callers()] == ["bruno"]


def test_a_gallery_s_table_wins_over_the_defaults_and_these_over_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_TARGET_FPIR", "0.5")
    monkeypatch.setenv("VOICE_MAX_VOICEPRINTS_PER_CALLER", "9")
    monkeypatch.setenv("VOICE_MIN_AUDIO_QUALITY", "0.3")
    galleries = Galleries.open(write(TWO))
    found = [
        (one.target_fpir, one.max_voiceprints_per_caller, one.min_audio_quality)
        for one in map(galleries.config, galleries)
    ]
    assert found == [(0.01, 4, 0.3), (0.01, 5, 0.3)]
    with galleries:
        assert galleries["brand-a"].config == galleries.config("brand-a")
        assert galleries["brand-b"].storage.max_voiceprints_per_caller == 5


def test_the_store_of_the_environment_is_no_gallery_s(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STORAGE_BACKEND": "redis",
        "STORAGE_PATH": "/elsewhere.json",
        "DATABASE_URL": "bad",
        "REDIS_URL": "redis://elsewhere",
    }.items():
        monkeypatch.setenv(f"VOICE_{name}", value)
    config = Galleries.open(gallery('storage_path = "a.json"')).config("brand-a")
    assert (config.storage_backend, config.storage_path) == ("json", str(folder / "a.json"))
    assert "elsewhere" not in config.redis_url
    assert "names no store: set storage_path" in refused(gallery("target_fpir = 0.1"))
    assert "names no store: set redis_url" in refused(gallery('storage_backend = "redis"'))


def test_relative_paths_begin_at_the_folder_of_the_file(folder: Path) -> None:
    (folder / "etc").mkdir()
    path = write(
        """[galleries.a]
        storage_path = "a.json"
        index_path = "a.index"
        calibration_path = "/our.npz"
        prompts = "~/prompts"
        encoder = "sherpa:models/x.onnx"
        encoder_secondary = "onnx:/models/y.onnx"
        [galleries.b]
        storage_path = "b.json"
        index_path = "off"
        encoder = "onnx-int8"
        """,
        "etc/voiceprint.toml",
    )
    galleries = Galleries.open(path)
    a, b = galleries.config("a"), galleries.config("b")
    etc = folder / "etc"
    assert (a.storage_path, a.index_path) == (str(etc / "a.json"), str(etc / "a.index"))
    assert (a.calibration_path, a.prompts) == ("/our.npz", "~/prompts")
    assert (a.encoder, a.encoder_secondary) == (f"sherpa:{etc}/models/x.onnx", "onnx:/models/y.onnx")
    assert (b.index_path, b.encoder) == ("off", "onnx-int8")
    assert galleries.path == etc / "voiceprint.toml"


def test_every_setting_that_is_a_path_is_taken_relative_to_the_file() -> None:
    named = {
        name for name in VoiceFingerprintConfig.model_fields if name.endswith(("_path", "_file", "_folder"))
    }
    assert named <= set(PATH_SETTINGS)


def test_names_iteration_and_unknown_names(folder: Path) -> None:
    with Galleries.open(write(TWO)) as galleries:
        assert list(galleries) == ["brand-a", "brand-b"] == list(galleries.names)
        assert len(galleries) == 2
        assert "brand-a" in galleries
        assert "brand-c" not in galleries
        assert repr(galleries) == f"Galleries('{folder}/voiceprint.toml', ['brand-a', 'brand-b'])"
        for use in (galleries.__getitem__, galleries.config):
            with pytest.raises(GalleryNotFoundError, match=r"no gallery 'brand-c'.*brand-a, brand-b"):
                use("brand-c")
        with pytest.raises(GalleryNotFoundError):
            galleries[1]  # type: ignore[index]
    with pytest.raises(GalleryNotFoundError, match="'brand-c'"):
        Galleries.open(only=["brand-c"])
    for bad in ("", 5, "a\0b"):
        with pytest.raises(InvalidArgumentError, match="path of the galleries"):
            Galleries.open(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="a list of names"):
        Galleries.open(only="brand-a")


def test_all_threads_have_one_recognizer_of_a_gallery(folder: Path) -> None:
    with Galleries.open(write(TWO)) as galleries:
        barrier = threading.Barrier(8)
        found = []

        def ask() -> None:
            barrier.wait()
            found.append(galleries["brand-a"])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(map(id, found)) == {id(galleries["brand-a"])}
        assert galleries["brand-a"].encoder is galleries["brand-b"].encoder


def test_a_closed_recognizer_is_opened_again_until_the_galleries_are_closed(folder: Path) -> None:
    galleries = Galleries.open(write(TWO))
    with galleries["brand-a"] as recognizer:
        assert recognizer.storage.count() == 0
    with pytest.raises(StorageError, match="closed"):
        recognizer.storage.count()
    assert galleries["brand-a"].storage.count() == 0
    last = galleries["brand-a"].storage
    galleries.close()
    galleries.close()
    assert last.is_closed
    with pytest.raises(StorageError, match=r"galleries of .* were closed"):
        galleries["brand-a"]


def test_a_gallery_whose_store_is_damaged_leaves_the_others_alone(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b/voiceprints.json").write_text("rubbish")
    with Galleries.open(write(TWO)) as galleries:
        for _ in range(2):
            with pytest.raises(StorageError):
                galleries["brand-b"]
            assert galleries["brand-a"].storage.count() == 0


def test_each_gallery_has_its_own_key_and_audit_log(folder: Path, voices: Voices) -> None:
    for name in "ab":
        new_key_file(f"{name}.key")
    tables = "\n".join(
        f"[galleries.{name}]\nstorage_path='{name}.db'\naudit='{name}.jsonl'\nencryption_key_file='{name}.key'"
        for name in "ab"
    )
    path = write(f"[defaults]\nstorage_backend = 'sqlite'\n{tables}")
    with Galleries.open(path) as galleries:
        galleries["a"].enroll_caller("amara", voices["amara"][0])
        galleries["b"].enroll_caller("bruno", voices["bruno"][0])
    logs = [Path(f"{name}.jsonl").read_text() for name in "ab"]
    assert ["amara" in log for log in logs] == [True, False]
    assert ["bruno" in log for log in logs] == [False, True]
    write(path.read_text().replace("b.key", "a.key"))
    with Galleries.open(path) as galleries, pytest.raises(ConfigurationError):
        galleries["b"].get_caller("bruno")
    assert "the audit log of the gallery 'b' is the audit log of 'a'" in refused(
        write(path.read_text().replace("b.jsonl", "a.jsonl"))
    )


def test_two_galleries_may_share_a_key_store_and_do_not_forget_each_other_s_keys(folder: Path) -> None:
    new_key_file("master.key")
    tables = "\n".join(f"[galleries.{name}]\nstorage_path='{name}.db'" for name in "ab")
    (folder / "sub").mkdir()
    settings = (
        "storage_backend = 'sqlite'\nencryption_key_file = '../master.key'\nencryption_keys = 'keys.db'"
    )
    with Galleries.open(write(f"[defaults]\n{settings}\n{tables}", "sub/voiceprint.toml")) as galleries:
        for name in "ab":
            galleries[name].storage.save(voiceprint("amara"))
        assert (folder / "sub/keys.db").exists()
        galleries["a"].storage.delete("amara")
        assert galleries["a"].storage.check(fix=True) == []
        assert galleries["b"].storage.check(fix=True) == []
        assert galleries["b"].storage.get("amara") is not None
    url = "postgresql://host/keys"
    write(f"[defaults]\nencryption_keys = '{url}'\n[galleries.a]\nstorage_path = 'a.db'")
    with Galleries.open("voiceprint.toml") as galleries:
        assert galleries.config("a").encryption_keys == url


def test_a_forked_process_uses_the_galleries_of_its_parent(folder: Path) -> None:
    write(TWO)
    with SQLiteStorage("a/voiceprints.db") as storage:
        storage.save(voiceprint("alice"))
    code = """
import os
from voiceprint import Galleries

with Galleries.open() as galleries:
    assert galleries["brand-a"].storage.count() == 1
    child = os.fork()
    assert [galleries[name].storage.count() for name in galleries] == [1, 0]
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# The file

BAD_FILES = [
    ("", "names no gallery"),
    ("[galleries]", "names no gallery"),
    ("galleries = 5", "[galleries] is 5: a table is allowed"),
    ("defaults = 'x'\n[galleries.a]\nstorage_path = 'a'", "[defaults] is 'x': a table is allowed"),
    ("[galleries]\na = true", "[galleries.a] is True: a table is allowed"),
    ("[gallery.a]\nstorage_path = 'a'", "'gallery' at the top: only [defaults] and [galleries.NAME]"),
    ("[galleries.'a b']\nstorage_path = 'a'", "'a b' is no name of a gallery"),
    ("[galleries.a.b]\nstorage_path = 'a'", "[galleries.a] has 'b', which is no setting"),
    ("[galleries.a]\nstorge_path = 'a'", "did you mean storage_path?"),
    ("[defaults]\nzz = 1\n[galleries.a]\nstorage_path = 'a'", "[defaults] has 'zz', which is no setting"),
    ("[defaults]\nredis_url = 'redis://h'\n[galleries.a]\n", "[defaults] redis_url would be the store of"),
    ("[galleries.a]\nstorage_path = 5", "[galleries.a] storage_path is 5, which is not allowed: the path"),
    ("[galleries.a]\nstorage_path = ''", "[galleries.a] storage_path is '', which is not allowed"),
    ("[galleries.a]\nstorage_path = ['a']", "storage_path is of type list, which is not allowed"),
    ("[galleries.a]\nstorage_path = 'a'\nadapt = 'perhaps'", "[galleries.a] adapt is 'perhaps'"),
    ("[galleries.a]\nstorage_path = 'a'\ntarget_fpir = 2020-01-01", "target_fpir is of type date"),
    ("[defaults]\ntarget_fpir = 2\n[galleries.a]\nstorage_path = 'a'", "[defaults] target_fpir is 2, which"),
    ("[galleries.a]\nstorage_path = 'a'\nstorage_path = 'b'\n", "Cannot overwrite a value (at line 3"),
    ("[galleries.a]\nstorage_path = \"a", "is not TOML: "),
    ("[galleries.a]\nstorage_path = {}", "storage_path is a table: { env = "),
    ("[galleries.a]\nstorage_path = { env = 'A', file = 'B' }", "storage_path is a table: { env = "),
    ("[galleries.a]\nstorage_path = { env = 5 }", "storage_path is a table: { env = "),
    ("[galleries.a]\nstorage_path = { url = 'x' }", "storage_path is a table: { env = "),
    ("[galleries.a]\nstorage_path = { env = 'NOT_SET' }", "the environment variable NOT_SET is not set"),
    ('[galleries.a]\nstorage_path = { file = "a\\u0000b" }', "storage_path: 'a\\x00b' has a null byte"),
    ('[galleries.a]\nstorage_path = "a"\nencoder = "onnx:a\\u0000b"', "encoder is 'onnx:"),
    ("[galleries.a]\nstorage_path = { file = 'none' }", "storage_path: the file 'none' does not exist"),
    ("[galleries.a]\nstorage_path = { file = '.' }", "the file '.' cannot be read"),
    ("[galleries.a]\nstorage_path = { file = '/dev/null' }", "/dev/null is a device"),
    ('[galleries.a]\nstorage_path = "a\\u0000b"', "storage_path is '"),
    ("[galleries.a]\nstorage_path = { file = 'empty' }", "the file 'empty' is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_fault_is_reported_with_its_place(folder: Path, text: str, message: str) -> None:
    (folder / "empty").write_text("\n")
    assert message in refused(write(text))
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "voiceprint.toml"]


def test_a_file_that_is_no_text_or_is_not_there_is_refused(folder: Path) -> None:
    assert "does not exist. Write it" in refused(Path("none.toml"))
    Path("latin.toml").write_bytes("[galleries.é]".encode("latin-1"))
    assert "not UTF-8 text, from byte 11 on" in refused(Path("latin.toml"))
    Path("long.toml").write_bytes(b"#" * 1_000_001)
    assert "longer than 1,000,000 bytes" in refused(Path("long.toml"))
    Path("marked.toml").write_bytes(b"\xef\xbb\xbf" + TWO.encode())
    assert len(Galleries.open("marked.toml")) == 2


def test_a_bad_variable_of_the_environment_is_named_as_such(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_TARGET_FPIR", "2")
    assert "[galleries.brand-a]: VOICE_TARGET_FPIR is '2'" in refused(gallery("storage_path = 'a'"))


# Secrets


def test_a_setting_that_is_a_table_is_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = "[galleries.brand-a.watch_targets]\nfraud = 0.001\nvip = 0.01"
    config = Galleries.open(gallery(f"storage_path = 'a'\n{targets}")).config("brand-a")
    assert config.watch_targets == {"fraud": 0.001, "vip": 0.01}
    monkeypatch.setenv("TARGETS", "fraud=0.002")
    config = Galleries.open(gallery("storage_path = 'a'\nwatch_targets = { env = 'TARGETS' }")).config(
        "brand-a"
    )
    assert config.watch_targets == {"fraud": 0.002}


def test_a_secret_is_read_from_a_variable_or_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_URL", "redis://user:hunter2@a/0")
    Path("b.url").write_text("redis://user:hunter2@b/0\n")
    path = write(
        """[defaults]
        storage_backend = "redis"
        [galleries.a]
        redis_url = { env = "A_URL" }
        [galleries.b]
        redis_url = { file = "b.url" }"""
    )
    galleries = Galleries.open(path)
    assert galleries.config("a").redis_url == "redis://user:hunter2@a/0"
    assert galleries.config("b").redis_url == "redis://user:hunter2@b/0"
    assert "hunter2" not in repr(galleries)


@pytest.mark.parametrize("source", ["env", "file"])
def test_a_secret_that_is_not_allowed_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("A_URL", "hunter2")
    Path("A_URL").write_text("hunter2")
    message = refused(gallery(f'storage_backend = "redis"\nredis_url = {{ {source} = "A_URL" }}'))
    assert "redis_url: the value of the" in message
    assert "A_URL is not allowed: a URL such as redis://localhost:6379/0" in message
    assert "hunter2" not in message


def test_a_syntax_error_does_not_show_the_passwords_of_the_file(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Galleries.open(gallery('redis_url = "redis://:hunter2@h\n'))
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value)


def test_a_process_of_one_gallery_needs_no_secret_of_another(folder: Path) -> None:
    write(f'{TWO}\n[galleries.brand-c]\nstorage_backend = "redis"\nredis_url = {{ env = "C_URL" }}')
    with Galleries.open(only=["brand-b"]) as galleries:
        assert galleries.names == ("brand-b",)
        assert galleries["brand-b"].storage.count() == 0
    with pytest.raises(ConfigurationError, match="C_URL is not set"):
        Galleries.open()
    with pytest.raises(ConfigurationError, match="C_URL is not set"):
        Galleries.open(only=["brand-c"])


# Isolation


def test_two_galleries_of_one_file_are_refused_with_both_names(folder: Path) -> None:
    Path("a.json").write_text("")
    Path("link.json").symlink_to("a.json")
    Path("hard.json").hardlink_to("a.json")
    for other in ("a.json", "./x/../a.json", str(folder / "a.json"), "link.json", "hard.json"):
        message = refused(
            write(f"[galleries.a]\nstorage_path='a.json'\n[galleries.b]\nstorage_path='{other}'")
        )
        assert "the store of the gallery 'b' is the store of 'a': give each gallery its own" in message


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            "index_path = 'x'",
            "index_path = './x'",
            "the index_path of the gallery 'b' is the index_path of 'a'",
        ),
        ("", "index_path = 'a.json'", "the index_path of the gallery 'b' is the store of 'a'"),
        (
            "",
            "index_path = 'a.json.index'",
            "the index_path of the gallery 'b' is the index's snapshot of 'a'",
        ),
    ],
)
def test_a_file_that_two_galleries_would_write_is_refused(folder: Path, a: str, b: str, message: str) -> None:
    text = f"[galleries.a]\nstorage_path='a.json'\n{a}\n[galleries.b]\nstorage_path='b.json'\n{b}"
    assert message in refused(write(text))
    assert len(Galleries.open(write(text.replace("b\n", "b").replace(b, "index_path = 'b.index'")))) == 2


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("audit = 'b/audit.jsonl.000000000001'", "audit = 'b/audit.jsonl'"),
        ("audit = 'b.json.lock'", ""),
        ("audit = 'b.json.0123456789abcdef.index'", ""),
        ("audit = '.b.json.a1b2c3d4.tmp'", ""),
        ("index_path = 'b.json-wal'", ""),
        ("index_path = 'b.json-shm'", ""),
        ("index_path = 'b.json-journal'", ""),
        ("index_path = 'b.index.lock'", "index_path = 'b.index'"),
        ("index_path = 'b.json.index'", "index_path = 'elsewhere.index'"),
        ("index_path = 'b.0123456789abcdef'", "index_path = 'b'"),
        ("audit = 'b.json.progress'", ""),
    ],
)
def test_a_name_of_another_gallery_s_further_files_is_refused(folder: Path, a: str, b: str) -> None:
    tables, text = {"a": a, "b": b}, ""
    for first, second in (("a", "b"), ("b", "a")):
        text = "".join(
            f"[galleries.{name}]\nstorage_path='{name}.json'\n{tables[name]}\n" for name in (first, second)
        )
        message = refused(write(text))
        assert "of the gallery 'a' has the name of a file that belongs to" in message
        assert "of 'b'" in message
    elsewhere = text.replace(a, a.replace("= '", "= 'x/"))
    assert len(Galleries.open(write(elsewhere))) == 2


def test_galleries_with_names_alike_are_apart(folder: Path) -> None:
    names = ("a", "a.b", "a.2024", "a.000000000001", "a-lock", "index", "lock")
    write(
        "".join(f"[galleries.'{name}']\nstorage_path='{name}.json'\naudit='{name}.jsonl'\n" for name in names)
    )
    assert len(Galleries.open()) == len(names)


def test_a_snapshot_path_of_the_environment_is_not_shared_by_galleries(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(TWO)
    monkeypatch.setenv("VOICE_INDEX_PATH", str(folder / "one.index"))
    assert "the index_path of the gallery 'brand-b' is the index_path of 'brand-a'" in refused(
        Path("voiceprint.toml")
    )
    monkeypatch.setenv("VOICE_INDEX_PATH", "off")
    assert len(Galleries.open()) == 2


@pytest.mark.parametrize(
    ("backend", "setting", "one", "other", "apart"),
    [
        ("redis", "redis_url", "redis://:pw@h:6379/0", "redis://h", "redis://h/1"),
        ("redis", "redis_url", "redis://h", "redis://h?prefix=voiceprint:", "redis://h?prefix=b:"),
        (
            "postgresql",
            "database_url",
            "postgresql://u:pw@h/d",
            "postgres://other@h:5432/d?sslmode=require",
            "postgresql://u@h/d?options=-csearch_path%3Db",
        ),
    ],
)
def test_two_urls_of_one_store_are_refused(
    folder: Path, backend: str, setting: str, one: str, other: str, apart: str
) -> None:
    def both(b: str) -> Path:
        stores = f"[galleries.a]\n{setting} = '{one}'\n[galleries.b]\n{setting} = '{b}'"
        return write(f"[defaults]\nstorage_backend = '{backend}'\n{stores}")

    message = refused(both(other))
    assert "the store of the gallery 'b' is the store of 'a'" in message
    assert "pw" not in message
    assert len(Galleries.open(both(apart))) == 2


def test_a_copy_of_another_gallery_s_files_is_refused_when_it_is_opened(folder: Path) -> None:
    write(
        TWO.replace(
            'storage_backend = "json"\nstorage_path = "b/voiceprints.json"', 'storage_path = "b/v.db"'
        )
    )
    with SQLiteStorage("a/voiceprints.db") as storage:
        storage.save(voiceprint("alice"))
    (folder / "b").mkdir()
    shutil.copy("a/voiceprints.db", "b/v.db")
    with Galleries.open() as galleries:
        assert galleries["brand-a"].storage.count() == 1
        for _ in range(2):
            with pytest.raises(
                ConfigurationError, match="store of the gallery 'brand-b' is that of 'brand-a'"
            ):
                galleries["brand-b"]
        assert galleries["brand-a"].storage.count() == 1


def test_one_redis_server_under_two_names_is_found_when_it_is_opened(folder: Path) -> None:
    server, database = redis_server.shared_server(), redis_server.fresh_database()
    Path("other.sock").symlink_to(server.path)
    path = write(
        f"""[defaults]
        storage_backend = "redis"
        [galleries.a]
        redis_url = "{server.url(database)}"
        [galleries.b]
        redis_url = "unix://{folder}/other.sock?db={database}"
        """
    )
    with Galleries.open(path) as galleries:
        galleries["a"].storage.save(voiceprint("alice"))
    with Galleries.open(path) as galleries:
        assert galleries["a"].storage.count() == 1
        with pytest.raises(ConfigurationError, match="is that of 'a'"):
            galleries["b"]


def one_store_twice(folder: Path, backend: str) -> Path:
    """Galleries a and b over one store that does not exist yet, which the file alone cannot show."""
    if backend == "redis":
        server, database = redis_server.shared_server(), redis_server.fresh_database()
        Path("other.sock").symlink_to(server.path)
        places = [
            f"redis_url = '{server.url(database)}'",
            f"redis_url = 'unix://{folder}/other.sock?db={database}'",
        ]
    else:
        places = [f"storage_path = '{name}/v'" for name in ("n", "m")]
    tables = "".join(f"[galleries.{name}]\n{place}\n" for name, place in zip("ab", places, strict=True))
    return write(f"[defaults]\nstorage_backend = '{backend}'\n{tables}")


@pytest.mark.parametrize("backend", ["json", "sqlite", "redis"])
def test_one_store_of_two_galleries_is_found_once_it_exists(folder: Path, backend: str) -> None:
    caller = voiceprint("alice")
    with Galleries.open(one_store_twice(folder, backend)) as galleries:
        Path("m").symlink_to("n")  # after the file was checked
        a, b = (galleries[name] for name in "ab")
        assert b.match_caller(embedding=caller) is None
        a.storage.save(caller)
        for _ in range(2):
            for use in (
                lambda: b.match_caller(embedding=caller),
                lambda: b.storage.save(voiceprint("bruno")),
                lambda: b.get_caller("alice"),
                b.storage.identity,
            ):
                with pytest.raises(ConfigurationError, match="store of the gallery 'b' is that of 'a'"):
                    use()
        assert a.storage.count() == 1


def test_a_forked_process_finds_one_store_of_two_galleries(folder: Path) -> None:
    one_store_twice(folder, "sqlite")
    code = """
import os
from stores import voiceprint
from voiceprint import ConfigurationError, Galleries

with Galleries.open() as galleries:
    os.symlink("n", "m")
    a, b = (galleries[name] for name in "ab")
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        assert a.storage.count() == 1
    else:
        a.storage.save(voiceprint("alice"))
    try:
        b.match_caller(embedding=voiceprint("alice"))
    except ConfigurationError as error:
        assert "'b' is that of 'a'" in str(error)
    else:
        raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=with_tests()
    )
    assert done.returncode == 0, done.stderr


# The command line


def test_the_command_line_uses_the_store_and_settings_of_the_gallery(
    folder: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(TWO)
    with SQLiteStorage("a/voiceprints.db") as storage:
        storage.save(voiceprint("alice"))
    assert run("callers", "list", "--gallery", "brand-a", "--json")[1].count('"alice"') == 1
    assert run("db", "current", "--gallery", "brand-a")[0] == 0
    code, _, err = run("callers", "list", "--gallery", "brand-b")
    assert (code, err) == (2, "Error: b/voiceprints.json does not exist: enroll a caller, or give --store.\n")
    code, _, err = run("db", "current", "--gallery", "brand-b")
    assert code == 2
    assert "of the kind 'json'" in err
    monkeypatch.setenv("VOICE_GALLERY", "brand-a")
    assert "alice" in run("callers", "list")[1]
    assert "Nobody" in run("callers", "list", "--store", "json:new.json", "--create")[1]
    assert "Nobody" in run("callers", "list", "--gallery", "brand-b", "--create")[1]
    monkeypatch.chdir("/")
    assert run("callers", "list")[0] == 2
    assert "alice" in run("callers", "list", "--config", folder / "voiceprint.toml")[1]
    monkeypatch.setenv("VOICE_CONFIG", str(folder / "voiceprint.toml"))
    assert "alice" in run("callers", "list")[1]


def test_the_quality_that_a_gallery_asks_for_decides(folder: Path, run, voices: Voices) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.1, len(voices["amara"][0]))
    soundfile.write("noisy.wav", voices["amara"][0] + noise, 16_000)
    write(
        "[galleries.strict]\nstorage_path='a'\nmin_audio_quality=1.0\n[galleries.mild]\nstorage_path='b'\nmin_audio_quality=0.0"
    )
    assert run("quality", "noisy.wav", "--gallery", "strict")[0] == 1
    assert run("quality", "noisy.wav", "--gallery", "mild")[0] == 0


def test_callers_are_copied_between_galleries_of_different_keys(folder: Path, run) -> None:
    for name in "ab":
        new_key_file(f"{name}.key")
    write(
        "[galleries.a]\nstorage_path='a.json'\nencryption_key_file='a.key'\n"
        "[galleries.b]\nstorage_path='b.json'\nencryption_key_file='b.key'\naudit='b.jsonl'"
    )
    with Galleries.open() as galleries:
        galleries["a"].storage.save(voiceprint("alice"))
    assert run("copy", "--from", "gallery:a", "--to", "gallery:b")[0] == 0
    with Galleries.open() as galleries:
        assert galleries["b"].get_caller("alice") is not None
    assert Path("b.jsonl").exists()
    code, _, err = run("copy", "--from", "gallery:a", "--to", "gallery:c")
    assert (code, "has no gallery 'c'" in err) == (2, True)


def test_wrong_choices_are_refused(folder: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(TWO)
    for arguments, message in (
        (["--gallery", "brand-c"], "has no gallery 'brand-c'. The galleries are: brand-a, brand-b."),
        (["--gallery", ""], "has no gallery ''"),
        (["--gallery", "brand-a", "--store", "memory:"], "--store and --gallery name two stores"),
        (["--config", path], "--config names galleries, and none is chosen"),
        (["--config", "none.toml", "--gallery", "brand-a"], "none.toml does not exist"),
    ):
        code, _, err = run("callers", "list", *arguments)
        assert (code, message in err) == (2, True), err
    monkeypatch.setenv("VOICE_CONFIG", str(path))
    code, _, err = run("callers", "list")
    assert (code, "VOICE_CONFIG names galleries, and none is chosen" in err) == (2, True)
    assert run("callers", "list", "--store", "memory:")[0] == 0


def test_galleries_list_shows_the_stores_without_passwords(folder: Path, run) -> None:
    write(f"{TWO}\n[galleries.c]\nstorage_backend='redis'\nredis_url='redis://u:hunter2@h'")
    code, out, _ = run("galleries", "list")
    assert code == 0
    assert "hunter2" not in out
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["brand-a", f"sqlite:{folder}/a/voiceprints.db"],
        ["brand-b", f"json:{folder}/b/voiceprints.json"],
        ["c", "redis://h:6379/0"],
    ]
    shown = json.loads(run("galleries", "list", "--json")[1])
    assert shown[0] == {"gallery": "brand-a", "store": f"sqlite:{folder}/a/voiceprints.db", "encoder": "onnx"}
    write("[galleries.a]\n")
    assert run("galleries", "list")[0] == 2


def test_every_command_with_a_store_takes_a_gallery() -> None:
    def walk(command, name=""):
        for sub, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{name} {sub}")
        yield name, {option for one in command.params for option in one.opts}

    options = dict(walk(typer.main.get_command(app)))
    assert len(options) > 20
    assert "--config" not in options.pop(" evaluate"), "its --gallery is a number of callers"
    for name, found in options.items():
        assert ("--store" in found) <= ("--gallery" in found), name
        assert ("--gallery" in found) <= ("--config" in found), name


def test_evaluate_follows_the_gallery_of_the_environment(
    folder: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(TWO)
    monkeypatch.setenv("VOICE_GALLERY", "brand-c")
    code, _, err = run("evaluate", folder)
    assert (code, "has no gallery 'brand-c'" in err) == (2, True)
