"""`voiceprint identify-archive`: a row for every recording, whatever happens in between."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from dask_cluster import cluster
from distributed import LocalCluster
from voices import SAMPLES

from voiceprint import (
    ArchiveRow,
    AudioQualityError,
    DisabledError,
    InvalidArgumentError,
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    StorageUnavailableError,
    Verdict,
    VoiceFingerprintConfig,
    Voiceprint,
    open_storage,
)
from voiceprint.privacy.encryption.opening import open_store

# dask closes the event loop of its client a moment after the client.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

HEADER = "path,verdict,caller_id,similarity,fpir,reasons,error"
NAMES = ["calls/2026/a.flac", "calls/2026/b.flac", "calls/bad.wav", "calls/short.flac", "calls/z.flac"]
VERDICTS = ["accepted", "accepted", "", "", "rejected"]


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalCluster]:
    with cluster() as made:
        yield made


@pytest.fixture(autouse=True)
def _archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of two enrolled callers, of a stranger, and two that cannot be used."""
    monkeypatch.chdir(tmp_path)
    Path("calls/2026").mkdir(parents=True)
    for name, sample in (("2026/a", "amara/3"), ("2026/b", "bruno/3"), ("z", "dario/3")):
        shutil.copy(SAMPLES / f"{sample}.flac", f"calls/{name}.flac")
    Path("calls/bad.wav").write_bytes(b"no audio")
    Path("calls/notes.txt").write_text("neither")
    Path("calls/.hidden.wav").write_bytes(b"nor this")
    audio = Recording.open(SAMPLES / "amara/1.flac").mono[:8000]
    soundfile.write("calls/short.flac", audio, 16000)


@pytest.fixture(scope="module")
def voiceprints() -> list[Voiceprint]:
    """The voiceprints of three callers, two each."""
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    found = []
    for name in ("amara", "bruno", "carlo"):
        for number in (1, 2):
            recording = Recording.open(SAMPLES / f"{name}/{number}.flac")
            found.append(recognizer.enroll_caller(name, recording, {"plan": f"gold of {name}"}))
    return [one.model_copy(update={"id": None, "revision": None}) for one in found]


@pytest.fixture
def gallery(voiceprints: list[Voiceprint]) -> Iterator[OpusAgentVoiceRecognizer]:
    with OpusAgentVoiceRecognizer(MemoryStorage()) as recognizer:
        recognizer.storage.save_many(voiceprints)
        yield recognizer


@pytest.fixture
def store(voiceprints: list[Voiceprint]) -> str:
    with open_storage("sqlite:calls.db") as storage:
        storage.save_many(voiceprints)
    return "sqlite:calls.db"


def table(name: str = "out.csv") -> list[dict[str, str]]:
    with Path(name).open(newline="") as file:
        return [*csv.DictReader(file)]


def test_every_recording_is_a_row_in_order_with_its_answer_or_its_error(run, store: str) -> None:
    code, out, err = run("identify-archive", "calls", "--output", "out.csv", "--store", store)
    assert (code, out, err) == (1, "5 recordings, 2 with errors: out.csv\n", "")
    rows = table()
    assert Path("out.csv").read_text().splitlines()[0] == HEADER
    assert [row["path"] for row in rows] == NAMES
    assert [row["verdict"] for row in rows] == VERDICTS
    assert [row["caller_id"] for row in rows] == ["amara", "bruno", "", "", ""]
    assert [row["error"].partition(":")[0] for row in rows[2:4]] == ["InvalidAudioError", "AudioQualityError"]
    assert "gold" not in Path("out.csv").read_text()
    assert stat.S_IMODE(Path("out.csv").stat().st_mode) == 0o600
    assert not Path("out.csv.progress").exists()
    # The same answers as those of `identify`.
    code, out, _ = run("identify", "calls/2026/a.flac", "calls/z.flac", "--store", store, "--json")
    for row, answer in zip((rows[0], rows[4]), json.loads(out), strict=True):
        best = answer["matches"][0]
        assert row["verdict"] == answer["verdict"]
        assert float(row["similarity"]) == pytest.approx(best["similarity"], abs=1e-6)
        assert float(row["fpir"]) == pytest.approx(best["fpir"], rel=1e-3)


def test_parquet_has_the_same_rows_and_the_metadata_that_was_asked_for(run, store: str) -> None:
    from pyarrow import parquet

    run("identify-archive", "calls", "--output", "out.csv", "--store", store)
    code, _, err = run("identify-archive", "calls", "--output", "out.parquet", "--store", store, "--metadata")
    assert (code, err) == (1, "")
    found = parquet.read_table("out.parquet")
    assert found.column_names == [*HEADER.split(","), "metadata"]
    assert [str(found.schema.field(name).type) for name in ("similarity", "path")] == ["double", "string"]
    rows = found.to_pylist()
    plan = [None if row["metadata"] is None else json.loads(row["metadata"])["plan"] for row in rows]
    assert plan == ["gold of amara", "gold of bruno", None, None, None]
    texts = [{name: "" if row[name] is None else str(row[name]) for name in table()[0]} for row in rows]
    assert texts == table()


@pytest.mark.parametrize("how", ["processes", "scheduler"])
def test_workers_give_the_answers_of_this_process(
    gallery: OpusAgentVoiceRecognizer, workers: LocalCluster, how: str
) -> None:
    threads: list[ArchiveRow] = []
    gallery.identify_archive("calls", on_row=threads.append, processes=0)
    others: list[ArchiveRow] = []
    chosen = {"processes": 2} if how == "processes" else {"scheduler": workers.scheduler_address}
    counts = gallery.identify_archive("calls", on_row=others.append, **chosen)  # type: ignore[arg-type]
    assert counts == {"identified": 3, "failed": 2}
    assert [type(row.error) for row in others] == [
        type(None), type(None), InvalidAudioError, AudioQualityError, type(None),
    ]  # fmt: skip
    for one, other in zip(threads, others, strict=True):
        assert (other.path, other.status, other.verdict) == (one.path, one.status, one.verdict)
        assert (other.caller_id, other.reasons, other.metadata) == (one.caller_id, one.reasons, one.metadata)
        assert other.similarity == pytest.approx(one.similarity, abs=1e-5)


def test_a_bucket_is_read_through_fsspec(gallery: OpusAgentVoiceRecognizer, workers: LocalCluster) -> None:
    url = Path("calls").absolute().as_uri()
    rows: list[ArchiveRow] = []
    gallery.identify_archive(url, on_row=rows.append, scheduler=workers.scheduler_address)
    assert [row.path for row in rows] == [f"{url}{name.removeprefix('calls')}" for name in NAMES]
    assert [str(row.verdict or "") for row in rows] == VERDICTS
    for wrong, words in (("memory://none", "There is no recording below"), ("none", "cannot be read: No")):
        with pytest.raises(InvalidArgumentError, match=words):
            gallery.identify_archive(wrong, on_row=rows.append)


def test_an_interrupted_run_goes_on_with_what_is_left_and_writes_the_whole_table(
    run, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.csv").write_text(f"{HEADER}\nof,an,earlier,0,0,run,\n")
    command = ("identify-archive", "calls", "--output", "out.csv", "--store", store, "--processes", "0")
    real = OpusAgentVoiceRecognizer.identify_archive
    begun: list[bool] = []

    def interrupted(self: OpusAgentVoiceRecognizer, source: str, **options: object) -> object:
        # As Ctrl-C does after two recordings are begun.
        return real(self, source, **options | {"stop": lambda: begun.append(True) or len(begun) > 2})  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(OpusAgentVoiceRecognizer, "identify_archive", interrupted)
        code, out, err = run(*command)
    assert (code, out) == (130, "")
    assert err.startswith("Interrupted, and out.csv is not written: 3 recordings left.")
    assert table()[0]["path"] == "of"  # the earlier table is whole
    assert stat.S_IMODE(Path("out.csv.progress").stat().st_mode) == 0o600
    assert b"gold" not in Path("out.csv.progress").read_bytes()

    code, _, err = run(*command, "--threshold", "0.9")
    assert (code, len(table())) == (2, 1)
    assert "interrupted run with another store, encoder or other options" in err
    # A recording that is noted is not read again, so its loss does not show; one that changed is.
    shutil.copy(SAMPLES / "carlo/3.flac", "calls/2026/b.flac")
    answered: list[str] = []
    answer = OpusAgentVoiceRecognizer.identify_archive

    def watched(self: OpusAgentVoiceRecognizer, source: str, *, on_row, **options) -> object:
        def show(row: ArchiveRow) -> None:
            answered.append(row.status)
            on_row(row)

        return answer(self, source, on_row=show, **options)

    monkeypatch.setattr(OpusAgentVoiceRecognizer, "identify_archive", watched)
    code, _, err = run(*command)
    assert (code, err) == (1, "")
    assert answered == ["done_before", "identified", "failed", "failed", "identified"]
    assert [row["caller_id"] for row in table()] == ["amara", "carlo", "", "", ""]
    assert not Path("out.csv.progress").exists()


def test_a_caller_deleted_meanwhile_is_not_named_by_the_answers_of_the_interrupted_run(
    gallery: OpusAgentVoiceRecognizer,
) -> None:
    gallery.identify_archive("calls", on_row=lambda _: None, progress_path="notes")
    gallery.delete_caller("amara")
    rows: list[ArchiveRow] = []
    counts = gallery.identify_archive("calls", on_row=rows.append, progress_path="notes")
    assert counts == {"done_before": 3, "failed": 2}  # recordings with errors are tried again
    assert [row.caller_id for row in rows] == [None, "bruno", None, None, None]
    assert (rows[0].verdict, rows[0].similarity) == (Verdict.NOT_ENROLLED, None)
    assert rows[1].metadata == {"plan": "gold of bruno"}
    rows.clear()
    assert gallery.identify_archive("calls", on_row=rows.append, progress_path="notes", again=True) == {
        "identified": 3, "failed": 2,
    }  # fmt: skip


def test_the_audit_log_has_an_event_for_each_recording_with_audio(store: str) -> None:
    config = VoiceFingerprintConfig(audit=f"{Path.cwd()}/audit.jsonl")
    with OpusAgentVoiceRecognizer(open_store(store, config), config=config) as recognizer:
        recognizer.identify_archive("calls", on_row=lambda _: None)
    events = [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]
    assert [event["action"] for event in events] == ["identify"] * 4
    assert [event.get("verdict") for event in events] == ["accepted", "accepted", None, "rejected"]
    assert events[2]["error"] == "AudioQualityError"


def test_wrong_use_is_refused_before_any_recording_is_read(run, store: str) -> None:
    Path("mine.csv").write_text("my,table\n")
    Path("mine.progress").write_bytes(b"mine")
    for options, words in (
        (["--output", "out.txt"], "--output is out.txt: give a FILE.csv or FILE.parquet."),
        (["--output", "mine.csv"], "mine.csv is there already and is not a table of identify-archive"),
        (["--output", "out.csv", "--progress", "mine.progress"], "is not the progress of an archive"),
        (["--output", "out.csv", "--progress", "calls.db"], "calls.db belongs to the store"),
    ):
        code, out, err = run("identify-archive", "calls", *options, "--store", store)
        assert (code, out) == (2, "")
        assert words in err
    assert Path("mine.csv").read_text() == "my,table\n"
    assert not Path("out.csv").exists()
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=VoiceFingerprintConfig(enabled=False)) as off:
        with pytest.raises(DisabledError):
            off.identify_archive("calls", on_row=lambda _: None)
        off.config.enabled = True
        with sqlite3.connect("locked") as other:
            other.execute("CREATE TABLE run (key)")
        other.close()
        with pytest.raises(InvalidArgumentError, match="is not the progress of an archive"):
            off.identify_archive("calls", on_row=lambda _: None, progress_path="locked")

        def again(_: ArchiveRow) -> None:
            off.identify_archive("calls", on_row=lambda _: None, progress_path="notes")

        with pytest.raises(StorageUnavailableError, match="another process is identifying this archive"):
            off.identify_archive("calls", on_row=again, progress_path="notes")
