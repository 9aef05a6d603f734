"""Manifests: what a row may hold, and what is said of one that cannot be used."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceprint import InvalidArgumentError, InvalidAudioError, ManifestRow, Recording, read_manifest
from voiceprint.enrollment.manifest import _header, _unique
from voiceprint.enrollment.progress import row_digest


def manifest(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(folder: Path, text: str | bytes, name: str = "m.csv") -> list[ManifestRow]:
    return [*read_manifest(manifest(folder, text, name))]


def fault(folder: Path, text: str | bytes, name: str = "m.csv") -> str:
    """The error of the last row."""
    error = rows(folder, text, name)[-1].error
    assert isinstance(error, InvalidArgumentError)
    return str(error)


def refusal(folder: Path, text: str | bytes, name: str = "m.csv") -> str:
    """The error of the whole file."""
    with pytest.raises(InvalidArgumentError) as error:
        rows(folder, text, name)
    return str(error.value)


CSV = '''caller_id,path,channel,encoding,rate,start,end,metadata.name,metadata.plan
alice,a.wav,1,mulaw,8000,0.5,7,"Alice, the ""first""",gold
bob,sub/b.wav,,,,,,,
'''
JSON = r"""{"caller_id": "alice", "path": "a.wav", "channel": 1, "encoding": "mulaw", "rate": 8000, \
"start": 0.5, "end": 7, "metadata": {"plan": "gold"}, "metadata.name": "Alice, the \"first\""}
{"caller_id": "bob", "path": "sub/b.wav", "channel": null}
""".replace("\\\n", "")


@pytest.mark.parametrize(("text", "name"), [(CSV, "m.csv"), (JSON, "m.JSONL"), (JSON, "m.ndjson")])
def test_both_forms_give_the_same_rows(tmp_path: Path, text: str, name: str) -> None:
    first, second = rows(tmp_path, text, name)
    assert first[2:] == (
        "alice", "a.wav", 1, "mulaw", 8000, 0.5, 7.0, {"plan": "gold", "name": 'Alice, the "first"'}, None,
    )  # fmt: skip
    assert (second.caller_id, second.file) == ("bob", tmp_path / "sub/b.wav")
    assert second[4:] == (None, None, None, 0.0, None, {}, None)
    assert first.line == second.line - 1


def test_the_forms_of_spreadsheets_are_read(tmp_path: Path) -> None:
    text = '\ufeff"caller_id",path ,metadata.note\r\n\r\nalice,a.wav,"two\r\nlines"\r\n,,\r\nbob,b.wav,x\r\n'
    first, second = rows(tmp_path, text)
    assert (first.line, first.caller_id, first.metadata) == (3, "alice", {"note": "two\r\nlines"})
    assert (second.line, second.caller_id) == (6, "bob")


def test_a_caller_id_and_a_path_are_kept_to_the_letter(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "caller_id,path\n ali ce , a b.wav \n")
    assert (row.caller_id, row.path) == (" ali ce ", " a b.wav ")
    (row,) = rows(tmp_path, f"caller_id,path\nalice,{tmp_path}/c.wav\n")
    assert row.file == tmp_path / "c.wav"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("caller,path\n", "line 1: There is no column 'caller': did you mean caller_id?"),
        ("caller_id,file,rate\n", "There is no column 'file': for metadata, name it metadata.file."),
        ("caller_id,path,Channel\n", "There is no column 'Channel': did you mean channel?"),
        ("caller_id,path,metadata\n", "metadata is in columns metadata.KEY, such as metadata.name."),
        ("caller_id,path,metadata.\n", "metadata is in columns metadata.KEY"),
        ("caller_id,path,path\n", "The column 'path' is there twice"),
        ("caller_id,path,metadata.a,metadata.a\n", "The column 'metadata.a' is there twice"),
        ("caller_id,path,,rate\n", "There is a column without a name"),
        ("\npath,rate\n", "line 2: the header has no column caller_id. It needs caller_id and path; further"),
        ("caller_id;path\na;b\n", "line 1 has semicolons between the columns"),
        ("caller_id\tpath\n", "line 1 has tabs between the columns"),
        ("", "is empty: it needs a header, such as caller_id,path."),
        ("\n\n", "is empty"),
        ('caller_id,path\nalice,a.wav\nbob,"b.wav\ncarl,c.wav\n', "line 3 and those after it are not CSV"),
        ('caller_id,path\nbob,"b"x\n', "line 2 and those after it are not CSV"),
        ("caller_id,path\nJosé,a.wav\n".encode("latin-1"), "line 2 is not UTF-8 (byte 0xe9)"),
        ("caller_id,path\n".encode("utf-16"), "line 1 is UTF-16: save the file as UTF-8"),
        (b"caller_id,path\n" + b"x" * 8_000_000, "line 2 is longer than 8,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    found = refusal(tmp_path, text)
    assert words in found
    assert found.startswith(str(tmp_path / "m.csv"))


class CountedName(str):
    """A name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedName.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__

    def strip(self, *_: object) -> CountedName:
        return self


@pytest.mark.parametrize(
    "read",
    [
        lambda names: _header(names, Path("m.csv"), 1),
        lambda names: _unique([(name, None) for name in [*names, names[-1]]]),
    ],
    ids=["columns", "keys"],
)
def test_each_of_thousands_of_names_is_compared_a_few_times(
    read: Callable[[list[CountedName]], None],
) -> None:
    names = [CountedName(f"metadata.{number}") for number in range(2000)]
    CountedName.compared = 0
    with contextlib.suppress(InvalidArgumentError):
        read(names)
    assert CountedName.compared < 40_000


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"none\.csv cannot be read: No such file"):
        next(read_manifest(tmp_path / "none.csv"))
    with pytest.raises(InvalidArgumentError, match=r"is a directory, not a file\. Give the path"):
        next(read_manifest(tmp_path))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (",a.wav,,,,,", "The caller id is empty"),
        ("x" * 513 + ",a.wav,,,,,", "at most 512"),
        ("alice,,,,,,", "path is empty"),
        ("alice,a.wav,8,,,,", "channel is 8: give one of 0 to 7."),
        ("alice,a.wav,-1,,,,", "channel is -1"),
        ("alice,a.wav,left,,,,", "channel is 'left'"),
        ("alice,a.wav,1_0,,,,", "channel is '1_0'"),
        ("alice,a.wav,\uff11,,,,", "channel is '\uff11'"),
        ("alice,a.wav,,,8_000,,", "rate is '8_000': give the Hz, such as 8000."),
        ("alice,a.wav,,,,1_0,", "start is '1_0'"),
        ("alice,a.wav,,gsm7,,,", "encoding must be one of pcm, "),
        ("alice,a.wav,,,8k,,", "rate is '8k'"),
        ("alice,a.wav,,,96000,,", "not 96000"),
        ("alice,a.wav,,,,soon,", "start is 'soon': give seconds from the start of the file, 0 to 3600."),
        ("alice,a.wav,,,,-1,", "start is -1.0"),
        ("alice,a.wav,,,,,nan", "end is nan"),
        ("alice,a.wav,,,,,1e9", "end is 1000000000.0"),
        ("alice,a.wav,,,,2,2", "start is 2 s and end is 2 s: end must be later."),
        ("alice,a.wav", "The row has 2 cells, and the header 7."),
        ("alice,a.wav,,,,,,,", "The row has 9 cells, and the header 7."),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, cells: str, words: str) -> None:
    header = "caller_id,path,channel,encoding,rate,start,end\n"
    assert words in fault(tmp_path, f"{header}{cells}\n")
    (row, _) = rows(tmp_path, f"{header}{cells}\nbob,b.wav,,,,,\n")
    with pytest.raises(InvalidArgumentError):
        row.open()
    with pytest.raises(InvalidArgumentError):
        row.check()


def test_all_faults_of_a_row_are_said_at_once(tmp_path: Path) -> None:
    found = fault(tmp_path, "caller_id,path,channel,rate\n,a.wav,x,1\n")
    assert ["The caller id is empty" in found, "channel is 'x'" in found, "not 1:" in found] == [True] * 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "The line is a list: JSON Lines has an object a line."),
        ('"alice"', "The line is a text"),
        ("17", "The line is 17"),
        ("{", "The line is not JSON: expecting property name enclosed in double quotes, character"),
        ("[" * 100_000, "The line is not JSON: it is nested too deeply."),
        ('{"rate": ' + "9" * 5_000 + "}", "The line is not JSON: a number has too many digits."),
        ('{"end": NaN}', "The line is not JSON: NaN is no number of JSON."),
        ('{"path": "a", "path": "b"}', "The line is not JSON: the key 'path' is there twice in an object."),
        ('{"caller_id": 7, "path": "a"}', "A caller id is a str"),
        ('{"caller_id": "a", "path": 7}', "path is 7: give the path of a recording."),
        ('{"caller_id": "a", "path": "\\ud800"}', "with characters that no file name has."),
        ('{"caller_id": "a", "path": "\\u0000"}', "with characters that no file name has."),
        ('{"caller_id": "a", "path": "b", "channel": true}', "channel is True"),
        ('{"caller_id": "a", "path": "b", "start": "2"}', "start is '2'"),
        ('{"caller_id": "a", "path": "b", "sample_rate": 8000}', "no key 'sample_rate': did you mean"),
        ('{"caller_id": "a", "path": "b", "metadata": "gold"}', "Metadata is a dict"),
        (
            '{"caller_id": "a", "path": "b", "metadata": {"x": 1}, "metadata.x": 2}',
            "The key 'x' is in metadata, and there as metadata.KEY too.",
        ),
    ],
)
def test_a_line_of_json_that_cannot_be_used_says_why(tmp_path: Path, line: str, words: str) -> None:
    good = '{"caller_id": "alice", "path": "a.wav"}'
    first, bad, last = rows(tmp_path, f"\ufeff{good}\n\n{line}\n{good}\n", "m.jsonl")
    assert words in str(bad.error)
    assert (first.error, bad.line, last.line, last.error) == (None, 3, 4, None)


def test_of_thousands_of_unknown_keys_five_are_named(tmp_path: Path) -> None:
    keys = ", ".join(f'"key {number}": 1' for number in range(2000))
    found = fault(tmp_path, f'{{"caller_id": "a", "path": "b", {keys}}}', "m.jsonl")
    assert found.count("There is no key") == 5
    assert found.endswith("1995 more keys have no meaning.")


def test_a_recording_outside_the_folder_is_refused_also_by_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "circle").symlink_to(folder / "circle")
    names = ["a.wav", "b/../a.wav", "../a.wav", f"{tmp_path}/a.wav", "out/a.wav", "circle/a.wav"]
    manifest = folder / "manifest.csv"
    manifest.write_text("caller_id,path\n" + "".join(f"x,{name}\n" for name in [*names, ""]))
    rows = [*read_manifest(manifest, within=folder)]
    assert [row.error is None for row in rows] == [True, True] + [False] * 5
    assert all("outside the folder" in str(row.error) for row in rows[2:6])
    assert [row.error is None for row in read_manifest(manifest)] == [True] * 6 + [False]


def test_a_cell_may_be_as_long_as_metadata(tmp_path: Path) -> None:
    longest = "x" * 900_000
    (row,) = rows(tmp_path, f"caller_id,path,metadata.note\na,b,{longest}\n")
    assert row.metadata == {"note": longest}


def test_metadata_is_in_no_message_and_no_repr(tmp_path: Path) -> None:
    text = '{"caller_id": "a", "path": "b", "metadata": {"k": "secret", "n": 1e999}}'
    (row,) = rows(tmp_path, text, "m.jsonl")
    assert row.error is not None
    (good,) = rows(tmp_path, text.replace("1e999", "1"), "m.jsonl")
    assert good.metadata == {"k": "secret", "n": 1}
    assert "secret" not in f"{row!r} {row.error} {good!r} {good}"
    assert "secret" not in fault(tmp_path, text.replace("}}", "}, secret"), "m.jsonl")


def test_a_million_rows_take_no_more_memory_than_one(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / "m.csv"
        path.write_text(
            "caller_id,path\n" + "".join(f"caller {n},recordings/{n}.wav\n" for n in range(count))
        )
        tracemalloc.start()
        assert sum(1 for _ in read_manifest(path)) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(20_000) < peak(200) + 1_000_000  # a list of the rows takes eight times as much


def test_rows_that_differ_have_different_digests_wherever_the_file_is(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = "\n".join(
        ["caller_id,path,channel,encoding,rate,start,end,metadata.x", "a,b,,,,,,", "c,b,,,,,,", "a,d,,,,,,",
         "a,b,0,,,,,", "a,b,,pcm,,,,", "a,b,,,8000,,,", "a,b,,,,1,,", "a,b,,,,,1,", "a,b,,,,,,y"]
    )  # fmt: skip
    digests = [row_digest(row) for row in rows(tmp_path, text)]
    assert len(set(digests)) == 9
    assert digests == [row_digest(row) for row in rows(other, text.replace("\n", "\n\n"))]


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Two channels of 10 s at 8 kHz, whose samples count the samples."""
    count = np.arange(80_000, dtype=np.int32)
    pcm = np.stack([count % 30_000, -(count % 30_000)], axis=1).astype(np.int16)
    soundfile.write(tmp_path / "tone.wav", pcm, 8000)
    return tmp_path / "tone.wav"


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_an_excerpt_is_cut_to_the_sample(tone: Path, kind: str) -> None:
    path = tone.with_suffix(f".{kind}")
    whole, rate = soundfile.read(tone, dtype="int16")
    soundfile.write(path, whole, rate)
    for start, end in ((0.0, None), (0.0, 2.0), (3.0, 3.5), (2.5, None), (9.9, 10.04)):
        found = Recording.open(path, channel=1, start_s=start, end_s=end)
        expected = whole[round(start * 8000) : None if end is None else round(end * 8000), 1]
        assert np.array_equal(found.native, expected / np.float32(32768))
    mixed = Recording.open(path, start_s=1.0, end_s=2.0)
    assert mixed.duration_s == 1.0
    assert mixed.channels.cancels


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (10.0, None, r"tone\.wav is 10\.00 s long: start is 10 s, give an earlier one"),
        (2.0, 10.06, r"tone\.wav is 10\.00 s long: end is 10\.06 s, give an earlier one"),
        (11.0, 12.0, "start is 11 s"),
        (3.0, 3.0, "start is 3 s and end is 3 s: end must be later"),
        (-1.0, None, "start is -1.0: give seconds"),
        (5.0, 5.00001, r"tone\.wav has no sample at 8000 Hz between start \(5\.0 s\) and end"),
        (0.0, 1e-9, r"and end \(1e-09 s\): give a later end"),
        (0.0, 3601, "end is 3601"),
    ],
)
def test_an_excerpt_outside_the_file_is_refused(
    tone: Path, start: float, end: float | None, words: str
) -> None:
    with pytest.raises(InvalidAudioError, match=words):
        _ = Recording.open(tone, start_s=start, end_s=end).native


def test_the_check_of_a_row_finds_what_opening_would(tone: Path) -> None:
    soundfile.write(tone.with_name("tone.mp3"), *soundfile.read(tone))
    header = "caller_id,path,channel,start,end"
    cells = [
        "a,tone.wav,,,", "a,tone.wav,1,9,10", "a,tone.mp3,0,2,9", "a,tone.wav,2,,", "a,tone.wav,,11,",
        "a,tone.mp3,,,20", "a,m.csv,,,", "a,none.wav,,,", "a,tone.wav,,5,5.00001", "a,tone.mp3,,,1e-9",
    ]  # fmt: skip
    outcomes = []
    for row in rows(tone.parent, "\n".join([header, *cells])):
        for method in (row.check, row.open):
            try:
                method()
            except InvalidAudioError as error:
                outcomes.append(str(error))
            else:
                outcomes.append("good")
    checked, opened = outcomes[::2], outcomes[1::2]
    assert checked == opened
    assert checked[:3] == ["good"] * 3
    assert "good" not in checked[3:]
