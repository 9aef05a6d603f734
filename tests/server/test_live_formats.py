"""The formats of live calls, without a network: the fixtures, faults, and signatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated
from record_conversations import FIXTURES, conversations, read, written

from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.errors import InvalidArgumentError
from voiceprint.server.live.audiohook import AudioHookConversation
from voiceprint.server.live.audiosocket import AudioSocketConversation
from voiceprint.server.live.conversation import Audio, CallOptions, Conversation, Ended, Event, Reply, Started
from voiceprint.server.live.raw import RawConversation
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.live.signatures import is_signed_by_audiohook, is_signed_by_twilio
from voiceprint.server.live.twilio import TwilioConversation

MAKERS: dict[str, Callable[[], Conversation]] = {
    "twilio": TwilioConversation,
    "freeswitch": RawConversation,
    "vonage": RawConversation,
    "jambonz": RawConversation,
    "mulaw": RawConversation,
    "audiosocket": AudioSocketConversation,
    "audiohook": AudioHookConversation,
}
MULAW = AudioFormat(8000, "mulaw")
PCM = AudioFormat(8000, "pcm_s16le")
WIDE = AudioFormat(16_000, "pcm_s16le")
STEREO = AudioFormat(8000, "pcm_s16le", 0, 2)


def heard(conversation: Conversation, messages: list[Any]) -> list[Event]:
    """All events of these messages."""
    return [event for message in messages for event in conversation.receive(message)]


@pytest.mark.parametrize("name", MAKERS)
def test_a_fixture_is_what_its_script_writes(name: str) -> None:
    assert (FIXTURES / f"{name}.txt").read_text() == written(conversations()[name])


@pytest.mark.parametrize(
    ("name", "audio_format", "size", "call_id", "number"),
    [
        ("twilio", MULAW, 8000, "CA17", None),
        ("freeswitch", PCM, 16_000, "freeswitch-1", "+493012345"),
        ("vonage", WIDE, 32_000, "vonage-1", None),
        ("jambonz", STEREO, 32_000, "6cb6bcd5-2f0d-4d0f-a4d6-4cd3a4dd8f21", "+493012345"),
        ("mulaw", MULAW, 8000, "raw-1", None),
        ("audiosocket", PCM, 16_000, "40325ec2-5efd-4bd3-805f-53576e581d13", None),
        ("audiohook", MULAW, 8000, "0f7e1c4b-6a2f-4a0e-9d53-6b27dd7a1a77", "+493012345"),
    ],
)
def test_a_conversation_has_a_start_all_audio_and_an_end(
    name: str, audio_format: AudioFormat, size: int, call_id: str, number: str | None
) -> None:
    events = heard(MAKERS[name](), read(name))
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.audio_format == audio_format
    assert (started.options.call_id, started.options.from_number) == (call_id, number)
    assert len(b"".join(event.data for event in events if isinstance(event, Audio))) == size
    assert isinstance(events[-1], Ended) == (name not in ("freeswitch", "vonage", "jambonz"))


def test_twilio_numbers_may_be_texts_and_parameters_lists() -> None:
    start = json.loads(read("twilio")[1])
    start["start"]["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": "8000", "channels": "1"}
    start["start"]["customParameters"] = {
        "candidates": '["amara", "bruno"]',
        "groups": "vip",
        "candidates_metadata": '{"phone": "+49"}',
        "k": "3",
        "webhook": "false",
    }
    (started,) = TwilioConversation().receive(json.dumps(start))
    assert isinstance(started, Started)
    options = started.options
    assert (options.candidates, options.groups, options.candidates_metadata) == (
        ["amara", "bruno"],
        ["vip"],
        {"phone": "+49"},
    )
    assert (options.k, options.webhook) == (3, False)
    assert "+49" not in repr(options)


def test_a_stream_of_the_outbound_track_alone_is_taken() -> None:
    messages = read("twilio")
    start = json.loads(messages[1])
    start["start"]["tracks"] = ["outbound"]
    events = heard(TwilioConversation(), [json.dumps(start), *messages[2:]])
    assert b"".join(event.data for event in events if isinstance(event, Audio)) == b"\xff" * 8000


MEDIA = {"encoding": "audio/x-mulaw", "sampleRate": 8000}
START = json.dumps({"event": "start", "start": {"callSid": "CA1", "mediaFormat": MEDIA}})


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (["no JSON"], "not JSON"),
        (["[1]"], "a JSON list"),
        ([b"x"], "binary message of 1 bytes"),
        (['{"event": "media", "media": {"payload": "AAAA"}}'], "before 'start'"),
        ([START, START], "second 'start'"),
        ([START, '{"event": "media", "media": {"payload": "A!"}}'], "not base64"),
        ([START, '{"event": "media", "media": {"payload": 7}}'], "is int"),
        ([START.replace("8000", '"x"')], "sample rate is 'x'"),
        ([START.replace("8000", "4000")], "4000 Hz: 8000 to 48000"),
        ([START.replace("audio/x-mulaw", "opus")], "'opus'"),
        ([START.replace('"CA1"', '"a/b"')], "parameter call_id"),
        (['{"event": 1}'], "event of a message is 1"),
        (['{"a": ' * 40 + "1" + "}" * 40], "deeper than 20"),
        (['{"event": "' + "x" * 70_000 + '"}'], "65536 are allowed"),
    ],
)
def test_a_fault_in_a_twilio_stream_is_named(messages: list[str | bytes], fault: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        heard(TwilioConversation(), messages)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ({}, "no 'rate'"),
        ({"rate": 8000, "encoding": "opus"}, "'opus'"),
        ({"rate": 8000, "channels": 9}, "1 to 8"),
        ({"rate": 8000, "channel": 1}, "of 1 channels"),
        ({"content-type": 7}, "content-type is 7"),
        ({"content-type": "audio/opus;rate=16000"}, "'audio/opus'"),
        ({"sampleRate": 64_000}, "8000 to 48000"),
        ({"sampleRate": 8000, "mixType": "three"}, "mixType is 'three'"),
        ({"rate": 8000, "k": 0}, "parameter k"),
        ({"rate": 8000, "candidates": '["a'}, "parameter candidates is"),
        ({"rate": 8000, "candidates": [""]}, "parameter candidates.0"),
    ],
)
def test_a_first_message_of_raw_audio_that_is_not_valid_is_named(first: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RawConversation().receive(json.dumps(first))
    assert fault in str(caught.value)


def test_audio_before_its_format_and_too_much_of_it_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Audio came first"):
        RawConversation().receive(b"\x00\x00")
    conversation = RawConversation({"rate": "8000"})
    assert [type(event) for event in conversation.receive(b"\x00\x00")] == [Started, Audio]
    with pytest.raises(InvalidArgumentError, match="bytes of audio"):
        conversation.receive(bytes(600_000))


def test_texts_of_freeswitch_between_the_audio_are_no_end() -> None:
    conversation = RawConversation()
    conversation.receive('{"rate": 8000}')
    assert conversation.receive("any text of send_text") == []
    assert conversation.receive('{"event": "dtmf", "dtmf": "5"}') == []
    assert conversation.receive('{"event": "stop"}') == [Ended()]


def test_answers_go_to_platforms_that_ask_for_them() -> None:
    answers = []
    for more in ({}, {"answers": True}, {"answers": "true"}, {"answers": "false"}):
        conversation = RawConversation()
        conversation.receive(json.dumps({"event": "websocket:connected", "content-type": "audio/l16"} | more))
        answers.append(len(conversation.running({"verdict": "accepted"})))
    assert answers == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("packets", "fault"),
    [
        (b"\x10\x00\x02ab", "0x01, a UUID, is expected"),
        (b"\x01\x00\x02ab", "UUID of 2 bytes"),
        (b"\x01\x00\x10" + bytes(16) + b"|\x01\x00\x10" + bytes(16), "second UUID"),
        (b"\x01\x00\x10" + bytes(16) + b"|\x10\x00\x03abc", "3 bytes"),
        (b"\x01\x00\x10" + bytes(16) + b"|\x17\x00\x02ab", "type 0x17"),
        (b"\x01\x00\x10" + bytes(16) + b"|\x10\x00\x02ab|\x12\x00\x02ab", "changed from 0x10"),
        (b"\x01", "shorter than its header"),
    ],
)
def test_a_fault_in_an_audiosocket_connection_is_named(packets: bytes, fault: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        heard(AudioSocketConversation(), packets.split(b"|"))
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "rate"), [(0x10, 8000), (0x11, 12_000), (0x12, 16_000), (0x15, 44_100), (0x16, 48_000)]
)
def test_the_type_of_an_audiosocket_packet_is_its_rate(kind: int, rate: int) -> None:
    conversation = AudioSocketConversation()
    assert conversation.receive(b"\x01\x00\x10" + bytes(16)) == []
    assert conversation.receive(b"\x03\x00\x015") == []  # a key before the audio
    started, audio = conversation.receive(bytes([kind]) + b"\x00\x02ab")
    assert isinstance(started, Started)
    assert (started.audio_format.sample_rate, audio) == (rate, Audio(b"ab"))
    assert conversation.receive(b"\xff\x00\x01\x02") == [Ended()]


def hook_message(kind: str, number: int, parameters: dict[str, Any], **changes: Any) -> str:
    envelope = {"version": "2", "id": "s", "type": kind, "seq": number, "serverseq": 0, "position": "PT0S"}
    return json.dumps(envelope | {"parameters": parameters} | changes)


OPEN: dict[str, Any] = {
    "conversationId": "c",
    "participant": {"ani": "", "dnis": ""},
    "media": [{"type": "audio", "format": "PCMU", "channels": ["external", "internal"], "rate": 8000}],
}


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([hook_message("open", 2, OPEN)], "seq is 2: 1 is expected"),
        ([hook_message("open", 1, OPEN, version="1")], "version '1'"),
        ([hook_message("open", 1, OPEN, serverseq=1)], "serverseq is 1"),
        ([hook_message("open", 1, OPEN, position="0")], "position is '0'"),
        ([hook_message("open", 1, OPEN, id=7)], "session id 7"),
        ([hook_message("open", 1, OPEN), hook_message("ping", 2, {}, id="t")], "session id 't'"),
        ([hook_message("open", 1, OPEN), hook_message("open", 2, OPEN)], "second 'open'"),
        ([hook_message("open", 1, OPEN | {"media": []})], "None of the 0 offered media"),
        ([hook_message("open", 1, OPEN | {"media": 1})], "media is 1"),
        ([hook_message("sing", 1, {})], "'sing'"),
        ([hook_message("open", 1, OPEN), b"abc"], "multiple of 2"),
        ([b"abc"], "outside an open session"),
        ([hook_message("open", 1, OPEN), hook_message("close", 2, {}), b"ab"], "outside an open session"),
    ],
)
def test_a_fault_in_an_audiohook_session_is_named(messages: list[str | bytes], fault: str) -> None:
    conversation = AudioHookConversation()
    with pytest.raises(InvalidArgumentError) as caught:
        heard(conversation, messages)
    assert fault in str(caught.value)
    if isinstance(messages[-1], bytes) and fault != "outside an open session":
        (disconnect,) = map(json.loads, conversation.refused("no"))
        assert (disconnect["type"], disconnect["parameters"]["reason"]) == ("disconnect", "error")
        assert conversation.refused("again") == []


def test_the_messages_of_an_audiohook_session_are_answered() -> None:
    conversation = AudioHookConversation("s", "o")
    with pytest.raises(InvalidArgumentError, match="Organization-Id"):
        conversation.receive(hook_message("open", 1, OPEN))
    conversation = AudioHookConversation()
    opened, started = conversation.receive(hook_message("open", 1, OPEN))
    assert isinstance(started, Started)
    assert started.audio_format == AudioFormat(8000, "mulaw", 0, 2)
    replies = [opened]
    replies += conversation.receive(hook_message("update", 2, {"language": "de"}))
    replies += conversation.receive(hook_message("ping", 3, {}))
    for number, kind in enumerate(("paused", "resumed", "discarded", "error"), 4):
        assert conversation.receive(hook_message(kind, number, {"start": "PT1S", "discarded": "PT2S"})) == []
    assert conversation.receive(hook_message("close", 8, {"reason": "end"}, serverseq=3)) == [Ended()]
    texts = [json.loads(reply.message) for reply in replies if isinstance(reply, Reply)]
    assert [text["type"] for text in texts] == ["opened", "updated", "pong"]
    assert [(text["seq"], text["clientseq"]) for text in texts] == [(1, 1), (2, 2), (3, 3)]
    (closed,) = map(json.loads, conversation.ended({"verdict": "accepted", "decided": True}))
    assert (closed["type"], closed["seq"], closed["clientseq"]) == ("closed", 4, 8)


@pytest.mark.parametrize("name", MAKERS)
def test_no_mutation_of_a_conversation_raises_another_error(name: str) -> None:
    reasons = list[str]()
    for seed in range(300):
        conversation = MAKERS[name]()
        try:
            events = heard(conversation, mutated(read(name), seed))
        except InvalidArgumentError as error:
            reasons.append(str(error))
        else:
            assert all(isinstance(event, Started | Audio | Reply | Ended) for event in events)
        conversation.running({"verdict": "accepted", "decided": True})
        conversation.refused("no")
        conversation.ended(None)
    assert len(reasons) > 50
    assert max(map(len, reasons)) < 1000


# The example of https://developer.genesys.cloud/devapps/audiohook/session-walkthrough, whose request, key and
# secret are public.
SECRET = b"MySuperSecretKeyTellNo-1!2@3#4$5"
SIGNED = {
    "host": "audiohook.example.com",
    "audiohook-organization-id": "d7934305-0972-4844-938e-9060eef73d05",
    "audiohook-correlation-id": "e160e428-53e2-487c-977d-96989bf5c99d",
    "audiohook-session-id": "30b0e395-84d3-4570-ac13-9a62d8f514c0",
    "x-api-key": "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh",
    "signature": "sig1=:NZBwyBHRRyRoeLqy1IzOa9VYBuI8TgMFt2GRDkDuJh4=:",
    "signature-input": (
        'sig1=("@request-target" "@authority" "audiohook-organization-id" "audiohook-session-id" '
        '"audiohook-correlation-id" "x-api-key");keyid="SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh";'
        'nonce="VGhpc0lzQVVuaXF1ZU5vbmNl";alg="hmac-sha256";created=1641013200;expires=3282026430'
    ),
}
TARGET, CREATED = "/api/v1/voicebiometrics/ws", 1_641_013_200


def test_the_example_of_genesys_is_signed() -> None:
    assert is_signed_by_audiohook(SIGNED, TARGET, SECRET, now_s=CREATED + 1)


@pytest.mark.parametrize("name", [name for name in SIGNED if name != "signature"])
def test_a_change_of_a_signed_header_is_noticed(name: str) -> None:
    value = SIGNED[name]
    for other in (value[:-1] + ("0" if value[-1] != "0" else "1"), value + " x", ""):
        assert not is_signed_by_audiohook(SIGNED | {name: other}, TARGET, SECRET, now_s=CREATED + 1)
    left = {key: value for key, value in SIGNED.items() if key != name}
    assert not is_signed_by_audiohook(left, TARGET, SECRET, now_s=CREATED + 1)


@pytest.mark.parametrize("signature", ["", "sig1=::", "sig1=:!:", "sig2=:NZBw:", "sig1=:NZBw:", "x" * 9000])
def test_another_signature_is_refused(signature: str) -> None:
    assert not is_signed_by_audiohook(SIGNED | {"signature": signature}, TARGET, SECRET, now_s=CREATED + 1)


def test_a_signature_of_another_time_path_or_key_is_refused() -> None:
    assert not is_signed_by_audiohook(SIGNED, TARGET, SECRET)  # today: it is old
    assert not is_signed_by_audiohook(SIGNED, TARGET, SECRET, now_s=CREATED + 11)
    assert not is_signed_by_audiohook(SIGNED, TARGET, SECRET, now_s=CREATED - 4)
    assert not is_signed_by_audiohook(SIGNED, TARGET + "/", SECRET, now_s=CREATED + 1)
    assert not is_signed_by_audiohook(SIGNED, TARGET, SECRET + b"x", now_s=CREATED + 1)


def test_the_example_of_twilio_is_signed() -> None:
    # That of the tests of Twilio's own libraries: the URL, and the parameters of a request after it.
    url = (
        "https://mycompany.com/myapp.php?foo=1&bar=2CallSidCA1234567890ABCDECaller+14158675309Digits1234"
        "From+14158675309To+18005551212"
    )
    assert is_signed_by_twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", [url], "12345")
    assert not is_signed_by_twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", [url], "12346")
    for signature in (None, "", "é", "RSOYDt4T1cUTdK1PDd93/VVr8B8"):
        assert not is_signed_by_twilio(signature, [url], "12345")


def test_options_have_the_names_of_the_platforms() -> None:
    options = CallOptions.of({"to": "2"}, from_number="1", to_number="3", call_id=None)
    assert (options.from_number, options.to_number, options.call_id) == ("1", "2", None)
    with pytest.raises(InvalidArgumentError, match="JSON object"):
        CallOptions.of([1])


@pytest.mark.parametrize("name", LiveSettings.model_fields)
def test_a_setting_of_live_calls_is_on_the_page_with_its_default(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "live-calls.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `VOICE_SERVER_{name.upper()}` |"))
    default = LiveSettings.model_fields[name].default
    shown = row.split("|")[2].strip()
    if default is None:
        assert shown in ("none", "header `Host`")
    elif isinstance(default, float):
        assert float(shown) == default
    else:
        assert shown == (json.dumps(default) if isinstance(default, list) else str(default))
