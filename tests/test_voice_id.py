"""Files of Amazon Connect Voice ID: jobs that enroll, and lists of speakers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import SAMPLES

from voiceprint import (
    InvalidArgumentError,
    ManifestRow,
    MemoryStorage,
    Storage,
    Voiceprint,
    open_storage,
    read_manifest,
)
from voiceprint.consent import Consent
from voiceprint.enrollment.voice_id import import_speaker, read_speakers
from voiceprint.errors import CallerOptedOutError

KEY = "2026/05/amara.flac"
PAGE = Path(__file__).parents[1] / "docs" / "migration-voice-id.md"


@pytest.fixture
def store() -> Storage:
    return MemoryStorage()


def job(folder: Path, *requests: dict[str, Any], key: str = "SpeakerEnrollmentRequests") -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps({"Version": "1.0", key: [*requests]}, indent=2))
    return path


def request(name: str, *keys: str, channel: Any = 0, kind: str = "SpeakerId") -> dict[str, Any]:
    recordings = [{"S3Uri": f"s3://calls/{key}", "ChannelId": channel} for key in keys]
    return {"RequestId": f"r-{name}", kind: name, "AudioSpecifications": recordings}


def fault(row: ManifestRow) -> str:
    assert isinstance(row.error, InvalidArgumentError)
    return str(row.error)


@pytest.fixture
def buckets(tmp_path: Path) -> Path:
    """A folder with a copy of the bucket `calls`, which holds one recording."""
    copy = tmp_path / "buckets" / "calls" / KEY
    copy.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "amara" / "1.flac", copy)
    return tmp_path / "buckets"


def test_a_job_has_a_row_for_each_recording_of_each_speaker(tmp_path: Path) -> None:
    path = job(tmp_path, request("amara", "a.wav", "b.wav", channel=1), request("bruno", "c d.wav"))
    rows = [*read_manifest(path, s3_folder=tmp_path)]
    assert [(row.line, row.caller_id, row.file, row.channel) for row in rows] == [
        (1, "amara", tmp_path / "calls/a.wav", 1),
        (2, "amara", tmp_path / "calls/b.wav", 1),
        (3, "bruno", tmp_path / "calls/c d.wav", 0),
    ]
    assert not any(row.error for row in rows)


def test_a_fraudster_is_named_by_the_request(tmp_path: Path) -> None:
    fraudster = request("f-7", "a.wav", kind="RequestId")
    path = job(tmp_path, fraudster, key="FraudsterRegistrationRequests")
    (row,) = read_manifest(path, s3_folder=tmp_path)
    assert (row.caller_id, row.file) == ("f-7", tmp_path / "calls/a.wav")


def test_a_recording_in_s3_needs_the_folder_of_its_copy(tmp_path: Path) -> None:
    (row,) = read_manifest(job(tmp_path, request("amara", "a.wav")))
    assert "s3_folder" in fault(row)
    csv = tmp_path / "calls.csv"
    csv.write_text("caller_id,path\namara,s3://calls/a.wav\nbruno,b.wav\n")
    first, second = read_manifest(csv, s3_folder=tmp_path / "copies")
    assert (first.file, second.file) == (tmp_path / "copies/calls/a.wav", tmp_path / "b.wav")


@pytest.mark.parametrize("key", ["", "../other/a.wav", "a/../../../etc/passwd", "a//b.wav", "./a.wav"])
def test_no_path_leads_out_of_the_folder_of_the_copies(tmp_path: Path, key: str) -> None:
    (row,) = read_manifest(job(tmp_path, request("amara", key)), s3_folder=tmp_path)
    assert "give s3://BUCKET/KEY" in fault(row)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (request("amara"), "has no AudioSpecifications"),
        (request("amara") | {"AudioSpecifications": "s3://calls/a.wav"}, "has no AudioSpecifications"),
        (request("amara", "a.wav", channel="0"), "channel is '0'"),
        (request("amara", "a.wav", channel=9), "channel is 9"),
        (request("", "a.wav"), "The caller id is empty"),
        ({"AudioSpecifications": [{"ChannelId": 0}]}, "path is empty"),
    ],
)
def test_a_request_that_cannot_be_used_says_why_and_the_others_go_on(
    tmp_path: Path, broken: dict[str, Any], words: str
) -> None:
    bad, good = read_manifest(job(tmp_path, broken, request("bruno", "b.wav")), s3_folder=tmp_path)
    assert words in fault(bad)
    assert (good.caller_id, good.error) == ("bruno", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"SpeakerEnrollmentRequests": [', "is not JSON"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[]", "no job of Voice ID"),
        ('{"SpeakerEnrollmentRequests": {}}', "no job of Voice ID"),
        ('{"SpeakerEnrollmentRequests": [], "FraudsterRegistrationRequests": []}', "no job of Voice ID"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=words):
        list(read_manifest(path))


def test_a_job_is_enrolled_once_from_the_copy_of_its_bucket(tmp_path: Path, buckets: Path, run) -> None:
    path = job(tmp_path, request("amara", KEY), request("bruno", "lost.wav"))
    command = ["enroll-csv", str(path), "--s3-folder", str(buckets)]
    code, out, _ = run(*command, "--store", f"json:{tmp_path / 'v.json'}")
    assert code == 1
    assert "Enrolled 1 row." in out
    assert "lost.wav" in out
    _, out, _ = run(*command, "--store", f"json:{tmp_path / 'v.json'}")
    assert "Enrolled by an earlier run (--again): 1 row." in out
    _, out, _ = run(*command, "--dry-run")
    assert "2 rows checked, 1 with errors" in out


def speaker(name: str, status: str = "ENROLLED", **fields: Any) -> dict[str, Any]:
    return {
        "CustomerSpeakerId": name,
        "GeneratedSpeakerId": "id#1234567890123456789012",
        "DomainId": "D" * 22,
        "Status": status,
        "CreatedAt": "2024-03-01T10:00:00+00:00",
        "UpdatedAt": "2025-06-01T10:00:00.250000+00:00",
        "LastAccessedAt": "2025-05-01T10:00:00+00:00",
    } | fields


SPEAKERS = [
    speaker("amara"),
    speaker("bruno", "OPTED_OUT"),
    speaker("carla", "PENDING", LastAccessedAt=None),
    speaker("dario", "EXPIRED"),
]
PAGES = [
    {"SpeakerSummaries": SPEAKERS[:3], "NextToken": "abc"},
    {"SpeakerSummaries": SPEAKERS[3:], "NextToken": None},
]


def listed(folder: Path, text: object, name: str = "speakers.json") -> Path:
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text, indent=2))
    return path


@pytest.mark.parametrize(
    "text",
    [
        {"SpeakerSummaries": SPEAKERS},
        PAGES,
        SPEAKERS,
        "\n".join(json.dumps(page, indent=2) for page in PAGES),
        "\n".join(json.dumps({"Speaker": one}) for one in SPEAKERS) + "\n",
        "\ufeff" + json.dumps({"SpeakerSummaries": SPEAKERS}),
    ],
    ids=["a page", "list of pages", "list of speakers", "pages in turn", "descriptions", "byte order mark"],
)
def test_every_form_of_the_list_gives_the_same_speakers(tmp_path: Path, text: object) -> None:
    found = read_speakers(listed(tmp_path, text))
    assert found.complete
    assert [(one.caller_id, one.status) for one in found.speakers] == [
        ("amara", "ENROLLED"), ("bruno", "OPTED_OUT"), ("carla", "PENDING"), ("dario", "EXPIRED"),
    ]  # fmt: skip
    first = found.speakers[0]
    assert (first.created_at, first.updated_at) == (
        "2024-03-01T10:00:00.000000Z",
        "2025-06-01T10:00:00.250000Z",
    )


def test_a_csv_file_has_the_names_of_the_fields_in_any_order(tmp_path: Path) -> None:
    text = (
        'Status,Note,CustomerSpeakerId,UpdatedAt\nOPTED_OUT,x,bruno,2025-06-01T10:00:00Z\nENROLLED,,"a,b",\n'
    )
    found = read_speakers(listed(tmp_path, text, "speakers.CSV"))
    assert [(one.caller_id, one.status, one.updated_at) for one in found.speakers] == [
        ("bruno", "OPTED_OUT", "2025-06-01T10:00:00.000000Z"), ("a,b", "ENROLLED", None),
    ]  # fmt: skip


def test_a_time_may_be_seconds_and_an_id_the_generated_one(tmp_path: Path) -> None:
    row = speaker("", CreatedAt=1709287200.5, UpdatedAt=None)
    (one,) = read_speakers(listed(tmp_path, [row])).speakers
    assert (one.caller_id, one.created_at) == (row["GeneratedSpeakerId"], "2024-03-01T10:00:00.500000Z")


def test_a_last_page_that_has_a_next_one_is_not_the_whole_list(tmp_path: Path) -> None:
    assert not read_speakers(listed(tmp_path, PAGES[:1])).complete


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("{", "s.json", "line 1 on is not JSON"),
        ('{"SpeakerSummaries": []}\n\n{"a', "s.json", "line 3 on is not JSON"),
        ("[1]", "s.json", "no list of speakers"),
        ('{"FraudsterSummaries": []}', "s.json", "no list of speakers"),
        ([speaker("amara", "ASLEEP")], "s.json", "speaker 1: Status is 'ASLEEP'"),
        (
            [speaker("amara"), speaker("", GeneratedSpeakerId=None)],
            "s.json",
            "speaker 2: The caller id is empty",
        ),
        ([speaker("amara", CreatedAt="yesterday")], "s.json", "speaker 1: A time is ISO 8601"),
        ([speaker("amara", CreatedAt=1e300)], "s.json", "seconds since 1970"),
        ("name,Status\namara,ENROLLED\n", "s.csv", "no column CustomerSpeakerId"),
        ("", "s.csv", "no column CustomerSpeakerId"),
        ('CustomerSpeakerId,Status\n"amara,ENROLLED\n', "s.csv", "is not CSV"),
    ],
)
def test_a_file_that_is_no_list_of_speakers_is_refused(
    tmp_path: Path, text: object, name: str, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        read_speakers(listed(tmp_path, text, name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        read_speakers(tmp_path / "none.json")
    with pytest.raises(InvalidArgumentError, match="list of speakers"):
        read_speakers(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(InvalidArgumentError, match="not UTF-8"):
        read_speakers(tmp_path / "latin.json")


NAMES = (
    "AssociateFraudster CreateDomain CreateWatchlist DeleteDomain DeleteFraudster DeleteSpeaker "
    "DeleteWatchlist DescribeDomain DescribeFraudster DescribeFraudsterRegistrationJob DescribeSpeaker "
    "DescribeSpeakerEnrollmentJob DescribeWatchlist DisassociateFraudster EvaluateSession ListDomains "
    "ListFraudsterRegistrationJobs ListFraudsters ListSpeakerEnrollmentJobs ListSpeakers "
    "ListTagsForResource ListWatchlists OptOutSpeaker StartFraudsterRegistrationJob "
    "StartSpeakerEnrollmentJob TagResource UntagResource UpdateDomain UpdateWatchlist ACCEPT REJECT "
    "NOT_ENOUGH_SPEECH SPEAKER_NOT_ENROLLED SPEAKER_OPTED_OUT SPEAKER_EXPIRED SPEAKER_ID_NOT_PROVIDED "
    "HIGH_RISK LOW_RISK KNOWN_FRAUDSTER VOICE_SPOOFING "
)


@pytest.mark.parametrize("name", NAMES.split())
def test_the_page_names_every_operation_and_decision_of_voice_id(name: str) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and f"`{name}`" in line]
    assert rows, name


CONSENT = Consent(purpose="authentication", version="2024-03", source="a list")


def imported(
    store: Storage, folder: Path, consent: Consent | None = CONSENT, group: str | None = None
) -> list[str]:
    found = read_speakers(listed(folder, SPEAKERS)).speakers
    return [import_speaker(store, one, consent, group) for one in found]


def test_speakers_become_opted_out_or_pending_callers(tmp_path: Path, store: Storage) -> None:
    assert imported(store, tmp_path, group="voice-id") == ["pending", "opted_out", "pending", "expired"]
    amara, bruno, carla = (store.get(name) for name in ("amara", "bruno", "carla"))
    assert amara is not None
    assert amara.consent is not None
    assert (amara.consent.version, amara.consent.obtained_at) == ("2024-03", "2024-03-01T10:00:00.000000Z")
    assert amara.metadata["voice_id"] == {
        "status": "ENROLLED", "domain_id": "D" * 22, "last_accessed_at": "2025-05-01T10:00:00.000000Z",
    }  # fmt: skip
    assert (amara.groups, amara.voiceprints) == (("voice-id",), ())
    assert bruno is not None
    assert bruno.opt_out is not None
    assert bruno.opt_out.by == "Amazon Connect Voice ID"
    assert carla is not None
    assert "last_accessed_at" not in carla.metadata["voice_id"]
    assert store.get("dario") is None
    with pytest.raises(CallerOptedOutError):
        store.save(Voiceprint("bruno", np.ones(256, dtype=np.float32)))


def test_without_a_consent_only_refusals_are_stored(tmp_path: Path, store: Storage) -> None:
    assert imported(store, tmp_path, None) == ["to_enroll", "opted_out", "to_enroll", "expired"]
    assert [caller.caller_id for caller in store.iter_callers()] == ["bruno"]


def test_a_repeated_import_changes_nothing(tmp_path: Path, store: Storage) -> None:
    imported(store, tmp_path)
    before = [*store.iter_callers()]
    assert imported(store, tmp_path) == ["there_already", "opted_out", "there_already", "expired"]
    assert [*store.iter_callers()] == before


def test_callers_of_this_store_stay_as_they_are(tmp_path: Path, store: Storage) -> None:
    for name in ("amara", "bruno"):
        store.save(Voiceprint(name, np.ones(256, dtype=np.float32)))
    store.opt_out("carla", reason="said so here")
    assert imported(store, tmp_path) == ["there_already", "conflict", "opted_out", "expired"]
    bruno = store.get("bruno")
    assert bruno is not None
    assert len(bruno.voiceprints) == 1


@pytest.mark.parametrize(
    ("obtained_at", "outcome"), [("2025-05-31", "opted_out"), ("2025-06-02", "conflict")]
)
def test_the_later_of_a_refusal_and_a_consent_counts(
    tmp_path: Path, store: Storage, obtained_at: str, outcome: str
) -> None:
    store.set_consent("bruno", Consent(purpose="p", version="1", obtained_at=f"{obtained_at}T00:00:00Z"))
    assert imported(store, tmp_path)[1] == outcome


def test_the_command_says_what_it_does_and_does_it(tmp_path: Path, run) -> None:
    path, url = str(listed(tmp_path, SPEAKERS)), f"json:{tmp_path / 'v.json'}"
    code, out, _ = run("import-voice-id", path, "--consent-version", "1", "--store", url, "--dry-run")
    assert (code, out.splitlines()[0]) == (0, "4 speakers; nothing was changed.")
    assert not (tmp_path / "v.json").exists()
    code, out, err = run("import-voice-id", path, "--store", url)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["4", "1", "2", "1"]
    code, out, _ = run(
        "import-voice-id", path, "--consent-version", "1", "--group", "voice-id", "--store", url, "--json"
    )
    answer = json.loads(out)
    assert (answer["changed"], answer["callers"]["pending"]) == (True, ["amara", "carla"])
    assert answer["callers"]["opted_out"] == ["bruno"]


def test_the_command_warns_of_missing_pages_and_of_conflicts(tmp_path: Path, run) -> None:
    url = f"json:{tmp_path / 'v.json'}"
    with open_storage(url) as store:
        store.save(Voiceprint("bruno", np.ones(256, dtype=np.float32)))
    code, out, err = run("import-voice-id", str(listed(tmp_path, PAGES[:1])), "--store", url)
    assert code == 1
    assert "bruno" in out
    assert "NextToken" in err
    code, _, err = run("import-voice-id", str(listed(tmp_path, [])), "--group", "a", "--store", url)
    assert (code, "--consent-version" in err) == (2, True)
