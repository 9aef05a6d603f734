"""The file of a backend: what is written is read; what is damaged, foreign or newer is refused."""

import io
import json
import os
import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import in_child
from scoring_models import fitted, voices

from voiceprint.errors import ConfigurationError
from voiceprint.scoring import Backend, model_file


@pytest.fixture(scope="module")
def backend():
    return fitted()


@pytest.fixture
def file(backend, tmp_path):
    path = tmp_path / "scoring.npz"
    backend.save(path)
    return path


def rewritten(file, change, *, sign=True):
    """The file with its members changed, and the checksum made right again if `sign`."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members.pop("about.json"))
    change(header, members)
    if sign:
        header.pop("sha256", None)
        header["sha256"] = model_file._checksum(header, members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"about.json": json.dumps(header).encode(), **members}.items():
            archive.writestr(name, content)


def array_bytes(array, pickled=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def test_a_file_scores_as_what_was_saved(backend, file):
    enrolled, _ = voices(5, 1, seed=3)
    prints = [one[None] for one in enrolled]
    kept = Backend.load(file)
    assert kept.score(enrolled[2], prints) == pytest.approx(backend.score(enrolled[2], prints), abs=1e-4)
    assert (kept.calibration, kept.tail, kept.encoder) == (backend.calibration, backend.tail, "toy")


def test_a_calibration_replaces_a_calibration_and_no_other_file(backend, file):
    written = file.read_bytes()
    for there in (b"a letter", b"PK\x03\x04 another archive"):
        file.write_bytes(there)
        with pytest.raises(OSError, match="is there already and is not a calibration"):
            backend.save(file)
        assert file.read_bytes() == there
    file.write_bytes(written)
    file.chmod(0o666)
    backend.save(file)
    assert file.read_bytes() == written
    assert file.stat().st_mode & 0o777 == 0o600


def test_every_flipped_bit_is_refused_or_harmless(backend, file):
    content = file.read_bytes()
    chance = np.random.default_rng(1)
    for place in chance.integers(0, len(content), size=150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(chance.integers(8))
        file.write_bytes(damaged)
        try:
            kept = Backend.load(file)
        except ConfigurationError:
            continue
        # In the zip's own fields, such as the time, which nothing depends on.
        assert kept.calibration == backend.calibration
        assert (kept.plda.transform == backend.plda.transform.astype(np.float32)).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigurationError, match="damaged"):
        Backend.load(file)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing\.npz"):
        Backend.load(tmp_path / "nothing.npz")


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ConfigurationError, match="header"):
        Backend.load(path)


def test_the_power_is_kept(backend, file):
    replace(backend, plda=replace(backend.plda, power=0.75)).save(file)
    assert Backend.load(file).plda.power == 0.75


def test_a_newer_file_is_refused_with_what_to_do(file):
    rewritten(file, lambda header, _: header.update(version=model_file.VERSION + 1))
    with pytest.raises(ConfigurationError, match="upgrade"):
        Backend.load(file)


def test_a_file_of_an_older_release_is_refused_with_what_to_do(file):
    rewritten(file, lambda header, _: header.update(version=1))
    with pytest.raises(ConfigurationError, match=r"older release.*`voiceprint calibrate` writes a new one"):
        Backend.load(file)


def test_a_changed_number_without_its_checksum_is_refused(file):
    rewritten(file, lambda header, _: header["numbers"]["calibration"].update(offset=0.5), sign=False)
    with pytest.raises(ConfigurationError, match="checksum"):
        Backend.load(file)


def change_number(header, _members):
    header["numbers"]["tail"]["scale"] = -1.0


def change_share(header, _members):
    header["numbers"]["tail"]["share"] = 1.0


def change_text(header, _members):
    header["numbers"]["calibration"]["scale"] = "1.0"


def change_format(header, _members):
    header["format"] = "another"


def huge_number(header, _members):
    header["numbers"]["calibration"]["offset"] = 10**400


def large_shape(_header, members):
    members["mean.npy"] = members["mean.npy"].replace(b"(12,)", b"(9999999999,)", 1)


def negative_shape(_header, members):
    members["mean.npy"] = members["mean.npy"].replace(b"(12,)", b"(-3,)", 1)


def other_type(_header, members):
    members["mean.npy"] = members["mean.npy"].replace(b"'<f4'", b"(" * 300, 1)


def no_npy(_header, members):
    members["mean.npy"] = b"\x93NUMPY"


def drop_array(_header, members):
    del members["mean.npy"]


def pickle_array(_header, members):
    members["mean.npy"] = array_bytes(np.array([{}], dtype=object), pickled=True)


def misshape_array(_header, members):
    members["mean.npy"] = array_bytes(np.zeros(3, dtype=np.float32))


def nan_array(_header, members):
    members["between.npy"] = array_bytes(np.full(12, np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    "change",
    [
        change_number,
        change_share,
        change_text,
        change_format,
        drop_array,
        pickle_array,
        misshape_array,
        nan_array,
        huge_number,
        large_shape,
        negative_shape,
        other_type,
        no_npy,
    ],
)
def test_a_file_that_holds_something_else_is_refused_even_with_a_right_checksum(file, change):
    rewritten(file, change)
    with pytest.raises(ConfigurationError):
        Backend.load(file)


def zipped(path, members, *, packed=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def stated(file, size):
    """The file whose only member states another size of what it unpacks to, in the zip's directory."""
    content = bytearray(file.read_bytes())
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = size.to_bytes(4, "little")
    file.write_bytes(content)


def deep_header(file):
    zipped(file, {"about.json": b"[" * 100_000})


def deep_about(file):
    about = b'{"format": "voiceprint-scoring", "version": 2, "about": ' + b'{"a":' * 900 + b"1" + b"}" * 901
    zipped(file, {"about.json": about})


def large_header(file):
    zipped(file, {"about.json": b'"' + b" " * (8 << 20) + b'"'})


def bomb(file):
    zipped(file, {"about.json": b"{}", "mean.npy": bytes(400 << 20)})


def bomb_that_states_little(file):
    zipped(file, {"mean.npy": bytes(400 << 20)})
    stated(file, 10)


def bomb_of_lzma(file):
    zipped(file, {"mean.npy": bytes(400 << 20)}, packed=zipfile.ZIP_LZMA)
    stated(file, 10)


def damaged_lzma(file):
    zipped(file, {"about.json": b"{}" * 500}, packed=zipfile.ZIP_LZMA)
    content = bytearray(file.read_bytes())
    content[60:90] = bytes(30)
    file.write_bytes(content)


def damaged_bzip2(file):
    zipped(file, {"about.json": b"{}" * 500}, packed=zipfile.ZIP_BZIP2)
    content = bytearray(file.read_bytes())
    content[60:70] = bytes(10)
    file.write_bytes(content)


def many_members(file):
    zipped(file, {str(n): b"" for n in range(100_000)})


def larger_than_any(file):
    with file.open("wb") as stream:
        stream.truncate(8 << 30)


def a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def a_folder(file):
    file.unlink()
    file.mkdir()


HOSTILE = [
    deep_header, deep_about, large_header, bomb, bomb_that_states_little, bomb_of_lzma, damaged_lzma,
    damaged_bzip2, many_members, larger_than_any, a_pipe, a_folder,
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_file_is_refused_in_little_memory_and_without_waiting(file, make):
    make(file)

    def load():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
        with pytest.raises(ConfigurationError, match=r"scoring\.npz"):
            Backend.load(file)

    in_child(load)


def test_arrays_in_the_order_of_columns_are_read_as_what_they_are(file):
    plain = Backend.load(file).plda.transform

    def by_columns(_header, members):
        members["transform.npy"] = array_bytes(np.asfortranarray(plain, dtype=np.float32))

    rewritten(file, by_columns)
    assert (Backend.load(file).plda.transform == plain).all()
