"""Examples of requests and answers, for the OpenAPI document; by the id of the operation.

A test validates each against its schema.
"""

from __future__ import annotations

from typing import Any, Final

_TIME: Final = "2027-01-31T09:00:00.000000Z"
_EVENT: Final = "1f0c2d9e5a7b4c3d8e6f0a1b2c3d4e5f"
_EMBEDDING: Final = [0.6, -0.48, 0.64]  # of the encoder's dimension: 256 by default
_FORM: Final = "multipart/form-data"
_JSON: Final = "application/json"
_BYTES: Final = "(the bytes of the recording)"

PROBLEM: Final[dict[str, Any]] = {
    "type": "urn:voiceprint:error:CallerNotFoundError",
    "title": "Not Found",
    "status": 404,
    "detail": "There is no caller 'alice'.",
    "error": "CallerNotFoundError",
    "request_id": "5f0c2d9e1a7b4c3d",
}

_CONSENT: Final = {
    "purpose": "authentication",
    "version": "2027-01",
    "obtained_at": _TIME,
    "obtained_by": "agent-17",
    "expires_at": "2030-01-31T09:00:00.000000Z",
}
_PROVENANCE: Final = {"source": "call-4711", "quality": 0.93, "duration_s": 12.4, "net_speech_s": 9.1}
_VOICEPRINT: Final = {
    "id": 17,
    "caller_id": "alice",
    "encoder": "resemblyzer",
    "created_at": _TIME,
    "revision": 17,
    "augmented": True,
    "provenance": _PROVENANCE,
}
_CALLER: Final = {
    "caller_id": "alice",
    "state": "enrolled",
    "created_at": _TIME,
    "last_seen": _TIME,
    "groups": ["vip"],
    "voiceprints": [_VOICEPRINT],
    "consent": _CONSENT,
    "metadata": {"account": "7"},
}
_PENDING: Final = {
    "caller_id": "alice",
    "state": "pending",
    "created_at": _TIME,
    "consent": _CONSENT,
    "metadata": {"account": "7"},
}
_PAGE: Final = {"callers": [_CALLER], "next": "alice"}
_MATCH: Final = {
    "caller_id": "alice",
    "similarity": 0.91,
    "accepted": True,
    "verdict": "accepted",
    "voiceprint_id": 17,
    "llr": 9.2,
    "fpir": 0.0004,
    "probability": 0.999,
    "metadata": {"account": "7"},
}
_QUALITY: Final = {
    "score": 0.93,
    "duration_s": 12.4,
    "net_speech_s": 9.1,
    "snr_db": 31.0,
    "clipping": 0.0,
    "level_dbfs": -23.5,
    "bandwidth_hz": 3900.0,
    "speechlike": 0.98,
    "feedback": ["narrowband"],
    "advice": [],
}
_RECEIPT: Final = {
    "caller_id": "alice",
    "voiceprints": 2,
    "deleted_at": _TIME,
    "checked_at": _TIME,
    "places": [{"place": "voiceprints.db", "state": "erased", "detail": "searched: 40 pages"}],
    "complete": True,
}
_INDEX: Final = {
    "structure": "exact",
    "vectors": 1200,
    "buffered": 0,
    "nlist": 0,
    "nprobe": 0,
    "rerank_k": 0,
    "recall": 1.0,
    "recall_target": 0.99,
    "trained_on": 0,
    "training": False,
    "reason": "",
    "engine": "faiss",
    "ef_search": 0,
    "dead": 0,
}
_CALIBRATION: Final = {
    "decides": "target",
    "target_fpir": 0.005,
    "target_set": 0.005,
    "configured_target": None,
    "similarity_threshold": 0.75,
    "encoder": "resemblyzer",
    "scale": 3.6,
    "offset": 1.6,
    "stranger_shift": 0.0,
    "stranger_spread": 1.0,
    "about": {},
}
_JOB: Final = {
    "job_id": "1f0c2d9e5a7b4c3d",
    "kind": "enroll",
    "state": "running",
    "created_at": _TIME,
    "started_at": _TIME,
    "progress": {"stage": "enrolling", "done": 120, "counts": {"enrolled": 118, "failed": 2}},
}
_ENROLL_JOB: Final = {"manifest": "2027-01/callers.csv", "on_mismatch": "store"}
_JOB_DONE: Final = _JOB | {
    "state": "done",
    "ended_at": _TIME,
    "arguments": _ENROLL_JOB,
    "result": {
        "counts": {"enrolled": 239, "failed": 1},
        "failures": [{"line": 7, "error": "InvalidAudioError", "detail": "calls/7.wav: no such file."}],
    },
}

_CALL: Final = {
    "call_id": "CA17",
    "gallery": "default",
    "state": "live",
    "source": "twilio",
    "from": "+493012345",
    "to": "+493067890",
    "created_at": _TIME,
    "can_enroll": True,
    "answers": 3,
    "late_answers": 0,
    "most_late_s": 0.2,
    "answer": {
        "verdict": "accepted",
        "caller_id": "alice",
        "similarity": 0.91,
        "matches": [_MATCH],
        "decided": True,
        "final": False,
        "audio_s": 4.32,
        "net_speech_s": 3.9,
        "feedback": ["narrowband"],
        "late_s": 0.02,
    },
}

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "identify": {
        _FORM: {"audio": _BYTES, "k": 3, "not_groups": ["agents"]},
        _JSON: {"embedding": _EMBEDDING, "k": 3},
    },
    "match_caller": {
        _FORM: {"audio": _BYTES, "candidates": ["alice", "bob"]},
        _JSON: {"embedding": _EMBEDDING, "candidates": ["alice", "bob"]},
    },
    "identify_voices": {_FORM: {"audio": _BYTES, "ignore": ["agent-17"]}, _JSON: {"ignore": ["agent-17"]}},
    "verify": {
        _FORM: {"audio": _BYTES, "watch": ["fraud"]},
        _JSON: {"embedding": _EMBEDDING, "watch": ["fraud"]},
    },
    "check_enrollment": {_FORM: {"audio": _BYTES}},
    "get_embedding": {_FORM: {"audio": _BYTES}},
    "enroll_caller": {
        _FORM: {"audio": _BYTES, "metadata": {"account": "7"}, "groups": ["vip"], "source": "call-4711"},
        _JSON: {"embedding": _EMBEDDING, "encoder": "resemblyzer", "metadata": {"account": "7"}},
    },
    "find_callers": {_JSON: {"metadata": {"account": "7"}, "limit": 10}},
    "register_caller": {_JSON: {"consent": _CONSENT, "metadata": {"account": "7"}}},
    "change_caller": {_JSON: {"metadata": {"account": "8"}}},
    "merge_callers": {_JSON: {"into": "alice"}},
    "set_consent": {_JSON: _CONSENT},
    "opt_out": {_JSON: {"reason": "asked by phone", "by": "agent-17"}},
    "set_groups": {_JSON: {"groups": ["vip"]}},
    "add_to_group": {_JSON: {"groups": ["vip"]}},
    "create_job": {_JSON: {"kind": "enroll", "manifest": "2027-01/callers.csv"}},
    "feedback": {_JSON: {"event_id": _EVENT, "correct": False, "caller_id": "bob"}},
    "announce_call": {_JSON: {"from": "+493012345", "candidates": ["alice"]}},
    "enroll_from_call": {_JSON: {"caller_id": "alice", "groups": ["vip"]}},
    "check": {_JSON: {"fix": False}},
    "set_target": {_JSON: {"target_fpir": 0.005}},
    "purge_expired": {_JSON: {"dry_run": True}},
}

ANSWERS: Final[dict[str, Any]] = {
    "healthz": {"status": "ok"},
    "readyz": {"status": "ready", "state": "ready", "galleries": "ready"},
    "metrics": 'voiceprint_requests_total{method="GET",route="/healthz",status="200"} 1.0\n',
    "galleries": {"galleries": [{"name": "default"}], "roles": ["identify"]},
    "identify": {
        "verdict": "accepted",
        "caller_id": "alice",
        "similarity": 0.91,
        "matches": [_MATCH],
        "event_id": _EVENT,
    },
    "match_caller": {"caller_id": "alice", "similarity": 0.91, "metadata": {"account": "7"}},
    "identify_voices": {
        "voices": [
            {
                "turns": [{"start_s": 0.4, "stop_s": 6.2}],
                "net_speech_s": 5.1,
                "quality": _QUALITY,
                "matches": [_MATCH],
            }
        ]
    },
    "verify": {
        "caller_id": "alice",
        "accepted": True,
        "similarity": 0.91,
        "threshold": None,
        "llr": 9.2,
        "fmr": 0.0004,
        "probability": 0.999,
        "verdict": "accepted",
        "event_id": _EVENT,
    },
    "check_enrollment": {
        "ready": False,
        "more_audio_s": 2.5,
        "more_speech_s": 4.0,
        "quality": _QUALITY,
        "advice": ["Enrollment needs 10 s of audio, and this is 7.50 s: record 2.5 s more."],
    },
    "get_embedding": {"embedding": _EMBEDDING, "encoder": "resemblyzer"},
    "enroll_caller": _VOICEPRINT
    | {"last_seen": _TIME, "groups": ["vip"], "consent": _CONSENT, "metadata": {"account": "7"}},
    "delete_voiceprint": {"deleted": True},
    "callers": _PAGE,
    "find_callers": _PAGE,
    "get_caller": _CALLER,
    "register_caller": _PENDING,
    "change_caller": _CALLER | {"metadata": {"account": "8"}},
    "merge_callers": {"caller": _CALLER, "removed": [12]},
    "delete_caller": _RECEIPT,
    "set_consent": _CALLER,
    "opt_out": _RECEIPT,
    "opt_in": {"caller_id": "alice", "state": "pending"},
    "groups": {"groups": {"fraud": 3, "vip": 120}},
    "members": _PAGE,
    "set_groups": _CALLER,
    "add_to_group": _CALLER,
    "remove_from_group": _CALLER | {"groups": []},
    "create_job": _JOB | {"state": "queued", "started_at": None, "progress": None, "arguments": _ENROLL_JOB},
    "jobs": {"jobs": [_JOB]},
    "get_job": _JOB_DONE,
    "cancel_job": _JOB | {"state": "cancelled", "arguments": _ENROLL_JOB},
    "audit_events": {
        "events": [
            {
                "line": 4711,
                "event_id": _EVENT,
                "time": _TIME,
                "action": "identify",
                "actor": "key:agent-17",
                "caller": "alice",
                "verdict": "accepted",
                "similarity": 0.91,
            }
        ],
        "next": 4711,
        "damaged": 0,
    },
    "audit_verify": {
        "intact": True,
        "lines": 4711,
        "first": 1,
        "head": "4711:" + "5f0c2d9e" * 8,
        "faults": [],
        "cut_by_crash": 0,
        "anchors": 1,
    },
    "audit_head": {"line": 4711, "digest": "5f0c2d9e" * 8, "anchor": "4711:" + "5f0c2d9e" * 8},
    "feedback": {"event_id": _EVENT},
    "announce_call": _CALL | {"state": "announced", "source": None, "can_enroll": False, "answer": None},
    "list_calls": {"calls": [_CALL], "next": None},
    "get_call": _CALL,
    "find_call": _CALL,
    "enroll_from_call": _VOICEPRINT,
    "index_status": _INDEX,
    "rebuild_index": _INDEX,
    "spaces": {
        "spaces": [
            {
                "encoder": "resemblyzer",
                "dimension": 256,
                "voiceprints": 1200,
                "callers": 600,
                "only": 600,
                "share": 1.0,
                "use": "primary",
            }
        ]
    },
    "check": {
        "findings": [{"code": "index_missing", "place": "voiceprint 17", "message": "Rebuild the index."}]
    },
    "threshold_advice": {"advice": None},
    "calibration": _CALIBRATION,
    "set_target": _CALIBRATION,
    "retention_schedule": {
        "period": "2y",
        "at": _TIME,
        "callers": 600,
        "expired": {"retention": 2},
        "months": {"2029-01": 30},
        "never": 0,
        "opted_out": 1,
    },
    "purge_expired": {
        "at": _TIME,
        "callers": [{"caller_id": "alice", "reason": "retention", "voiceprints": 2}],
    },
}
