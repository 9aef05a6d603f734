"""The sockets of live calls: websockets of the application, and the TCP port of AudioSocket."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from voiceprint.errors import VoiceprintError
from voiceprint.server.access import authenticate, check_gallery, check_role, key_in_headers, service_of
from voiceprint.server.keys import Principal
from voiceprint.server.live.audiohook import AudioHookConversation
from voiceprint.server.live.audiosocket import HEADER, AudioSocketConversation, packet_length
from voiceprint.server.live.calls import LiveCalls
from voiceprint.server.live.connection import Connection
from voiceprint.server.live.conversation import Conversation, Message, Started
from voiceprint.server.live.raw import JAMBONZ, RawConversation
from voiceprint.server.live.session import LiveCall
from voiceprint.server.live.signatures import is_signed_by_audiohook, is_signed_by_twilio
from voiceprint.server.live.twilio import TwilioConversation
from voiceprint.server.problems import ProblemError

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/galleries/{gallery}/calls")


class WebSocketTransport:
    """A websocket as a `Transport`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> Message | None:
        """As `Transport.receive`."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, message: Message) -> None:
        """As `Transport.send`."""
        # RuntimeError: a close frame has come or gone before.
        with suppress(WebSocketDisconnect, RuntimeError):
            if isinstance(message, bytes):
                await self._websocket.send_bytes(message)
            else:
                await self._websocket.send_text(message)

    async def close(self, code: int, reason: str) -> None:
        """As `Transport.close`."""
        states = self._websocket.client_state, self._websocket.application_state
        if WebSocketState.DISCONNECTED in states:
            return
        with suppress(WebSocketDisconnect, RuntimeError):  # as above
            await self._websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


class StreamTransport:
    """A TCP connection of AudioSocket as a `Transport`: a message is a packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def receive(self) -> Message | None:
        """As `Transport.receive`."""
        try:
            header = await self._reader.readexactly(HEADER)
            return header + await self._reader.readexactly(packet_length(header))
        except (asyncio.IncompleteReadError, ConnectionError):  # the end, also within a packet
            return None

    async def send(self, message: Message) -> None:
        """As `Transport.send`."""
        with suppress(ConnectionError):  # the peer has gone
            self._writer.write(message if isinstance(message, bytes) else message.encode())
            await self._writer.drain()

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - there is no close frame
        """As `Transport.close`."""
        self._writer.close()
        with suppress(ConnectionError):  # the peer has gone
            await self._writer.wait_closed()


def calls_of(websocket: WebSocket) -> LiveCalls:
    """The live calls of the application that received this connection."""
    return service_of(websocket).live


@router.websocket("/twilio")
async def twilio(websocket: WebSocket, gallery: str) -> None:
    """Twilio Media Streams: signed with the auth token of the gallery, or with an API key."""
    live, name = calls_of(websocket), unquote(gallery)
    token = live.settings.twilio_token(name)
    signature = websocket.headers.get("x-twilio-signature")
    is_signed = token is not None and is_signed_by_twilio(signature, [_public_url(websocket, live)], token)
    if is_signed and name in live.service:
        await _serve(websocket, live, name, TwilioConversation, actor="twilio")
        return
    # Without a word on the signature: only who has a key may know how a gallery is set up.
    await _with_key(websocket, live, name, TwilioConversation)


@router.websocket("/raw")
async def raw(websocket: WebSocket, gallery: str) -> None:
    """Raw audio. The key may be in the URL, for platforms that send no headers of their own."""
    query = dict(websocket.state.query)
    key = query.pop("key", None)
    protocols = websocket.scope.get("subprotocols", [])
    await _with_key(
        websocket,
        calls_of(websocket),
        unquote(gallery),
        lambda: RawConversation(query),
        key=key_in_headers(websocket) or _basic_key(websocket) or key,
        protocol=JAMBONZ if JAMBONZ in protocols else None,
    )


@router.websocket("/audiohook")
async def audiohook(websocket: WebSocket, gallery: str) -> None:
    """Genesys AudioHook: an API key, and where the gallery has a client secret, a signature with it."""
    live, name = calls_of(websocket), unquote(gallery)
    headers = websocket.headers
    ids = headers.get("audiohook-session-id"), headers.get("audiohook-organization-id")
    secret = live.settings.audiohook_secret(name)
    target = _request_target(websocket)
    is_signed = secret is None or is_signed_by_audiohook(headers, target, secret)
    await _with_key(websocket, live, name, lambda: AudioHookConversation(*ids), is_signed=is_signed)


async def _with_key(
    websocket: WebSocket,
    live: LiveCalls,
    gallery: str,
    conversation: Callable[[], Conversation],
    *,
    key: str | None = None,
    protocol: str | None = None,
    is_signed: bool = True,
) -> None:
    """Serve a connection that has a key with the role identify, and a signature if it needs one."""
    try:
        principal = await authenticate(live.service, key or key_in_headers(websocket))
        check_gallery(live.service, principal, gallery)
        check_role(principal, "identify")
        if not is_signed:
            raise ProblemError(
                401,
                "NotAuthenticatedError",
                "The signature is not that of the gallery's client secret, or is too old: give the "
                "integration the secret of VOICE_SERVER_AUDIOHOOK_SECRETS, and leave the header Host "
                "as it is.",
            )
    except VoiceprintError as error:
        await _refuse(websocket, error)
        return
    await _serve(websocket, live, gallery, conversation, principal, protocol=protocol)


async def _serve(
    websocket: WebSocket,
    live: LiveCalls,
    gallery: str,
    conversation: Callable[[], Conversation],
    principal: Principal | None = None,
    *,
    actor: str | None = None,
    protocol: str | None = None,
) -> None:
    await websocket.accept(protocol)
    talk = conversation()
    who = actor or ("" if principal is None else principal.actor)

    async def open_call(started: Started, connection: Connection) -> LiveCall:
        return await live.open(gallery, talk.source, started, who, connection)

    connection = Connection(
        WebSocketTransport(websocket),
        talk,
        live.settings,
        open_call,
        live.left,
        live.redacted,
        sees_metadata=principal is not None and principal.sees_metadata,
        key_id=None if principal is None else principal.key_id,
    )
    await connection.run()


async def _refuse(websocket: WebSocket, error: VoiceprintError) -> None:
    """Answer the request to open a websocket with an HTTP status."""
    status = error.status if isinstance(error, ProblemError) else 404
    # Cut: its message may hold a long name, as it was sent.
    logger.warning("A websocket for calls is refused: %s", str(error)[:200])
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await websocket.send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await websocket.send({"type": "websocket.http.response.body", "body": str(error).encode()})
    else:
        await websocket.close(1008)


def _public_url(websocket: WebSocket, live: LiveCalls) -> str:
    """The URL of a websocket as the platform has it."""
    base = live.settings.public_url
    host = websocket.headers.get("host", "") if base is None else base.split("://", 1)[1].rstrip("/")
    return f"wss://{host}{_request_target(websocket)}"


def _request_target(websocket: WebSocket) -> str:
    path = websocket.scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
    query = websocket.state.raw_query
    return f"{path}?{query}" if query else path


def _basic_key(websocket: WebSocket) -> str | None:
    """The password of Basic authentication, which jambonz calls wsAuth: the key."""
    scheme, _, text = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):  # no key
        return None


class AudioSocketServer:
    """The TCP port of AudioSocket. `start` and `close` belong to the event loop."""

    def __init__(self, live: LiveCalls) -> None:
        self._live = live
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, if the settings give a port. Workers share it; the system spreads the connections."""
        settings = self._live.settings
        if settings.audiosocket_port is None:
            return
        is_shared = self._live.service.settings.workers > 1
        self._server = await asyncio.start_server(
            self._accept,
            settings.audiosocket_host,
            settings.audiosocket_port,
            reuse_port=is_shared or None,
        )
        self._live.audiosocket_port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def wait_closed(self) -> None:
        """Wait for the connections, which `LiveCalls.close` ends."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio.start_server makes one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        transport = StreamTransport(reader, writer)
        address = writer.get_extra_info("peername")[0]
        live = self._live
        if not live.settings.may_connect(address):
            logger.warning("AudioSocket of %s is refused: VOICE_SERVER_AUDIOSOCKET_PEERS lacks it.", address)
            await transport.close(1008, "")
            return
        talk = AudioSocketConversation()

        async def open_call(started: Started, connection: Connection) -> LiveCall:
            return await live.open(None, talk.source, started, f"audiosocket:{address}", connection)

        await Connection(transport, talk, live.settings, open_call, live.left, live.redacted).run()
