"""`voiceprint serve`, `voiceprint health` and `voiceprint keys`."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.common import JsonOption, print_error, print_json, print_lines, table
from voiceprint.cli.demo import SERVER_EXTRA
from voiceprint.cli.gallery_options import CONFIG_VARIABLE, DEFAULT_FILE, GALLERY_VARIABLE, ConfigOption
from voiceprint.errors import ConfigurationError, InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.server.keys import ApiKeys  # needs the extra

keys_app = typer.Typer(help="Make and revoke the API keys of the service.", no_args_is_help=True)

StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="PLACE",
        help="SQLite file or PostgreSQL URL of the keys, jobs and calls. Default: VOICE_SERVER_STATE, or "
        "voiceprint-server.db in this folder.",
    ),
]


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: VOICE_SERVER_HOST, or 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port. Default: VOICE_SERVER_PORT, or 8000.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that answer. Default: VOICE_SERVER_WORKERS, or 1."),
    ] = None,
    galleries: Annotated[
        list[str] | None,
        typer.Option(
            "--gallery", metavar="NAME", help="Serve this gallery of the file; may be repeated. Default: all."
        ),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Answer over HTTP, by default on http://127.0.0.1:8000.

    Serves the galleries of --config or VOICE_CONFIG, and without them the configured store as the gallery
    "default". Settings are VOICE_SERVER_* variables, see docs/server.md. Ctrl-C or SIGTERM ends it, once the
    requests in progress are answered.
    """
    try:
        from voiceprint.server.running import run
    except ImportError as error:
        raise ConfigurationError(SERVER_EXTRA) from error
    file = config or os.environ.get(CONFIG_VARIABLE) or None
    if galleries is None and os.environ.get(GALLERY_VARIABLE):
        galleries = [os.environ[GALLERY_VARIABLE]]
    if galleries and file is None:
        file = DEFAULT_FILE
    given = {"host": host, "port": port, "workers": workers, "state": state}
    run(
        {name: value for name, value in given.items() if value is not None},
        None if file is None else os.fspath(file),
        galleries,
        print_error,
    )


def health(
    url: Annotated[
        str | None,
        typer.Option(help="Address of the service. Default: this machine, as VOICE_SERVER_* say."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 5.0,
) -> None:
    """Ask a running service whether it is ready. Exit code 1 when it is not, or does not answer.

    For the health checks of containers, which need no other program then.
    """
    try:
        import httpx

        from voiceprint.server.settings import ServerSettings
    except ImportError as error:
        raise ConfigurationError(SERVER_EXTRA) from error
    context: ssl.SSLContext | bool = True
    if url is None:
        settings = ServerSettings()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
        if settings.tls_certificate is not None:
            url = url.replace("http:", "https:", 1)
            # The service's own certificate, whose name is not that of loopback.
            context = ssl.create_default_context(cafile=os.fspath(settings.tls_certificate))
            context.check_hostname = False
    try:
        answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=timeout, verify=context, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        print_error(f"{url} does not answer: {error}")
        raise typer.Exit(1) from error
    if answer.status_code != 200:
        print_error(f"{url} is not ready: {answer.text[:500]}")
        raise typer.Exit(1)
    print_lines("ready")


@keys_app.command("create")
def create_key(
    roles: Annotated[
        list[str],
        typer.Option("--role", metavar="ROLE", help="identify, enroll, admin or audit; may be repeated."),
    ],
    name: Annotated[
        str | None, typer.Option(help="Holder of the key, the actor in the audit log. Default: its id.")
    ] = None,
    galleries: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="GALLERY", help="Gallery of the key; may be repeated. Default: all."),
    ] = None,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Answers show the callers' metadata, as they do for an admin.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="End of the key, such as 2027-01-31 or 90d.")
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=0, help="Requests a minute, 0 for no limit. Default: VOICE_SERVER_RATE_LIMIT."),
    ] = None,
    state: StateOption = None,
) -> None:
    """Make an API key, and print it on the last line. It cannot be shown again: only its digest is stored."""
    keys = _keys(state)
    text, key = keys.create(
        roles, name=name, galleries=galleries, metadata=metadata, expires_at=_end(expires), rate_limit=rate
    )
    print_error(
        f"Key {key.key_id}, {', '.join(key.roles)}, for {_galleries(key.galleries)}, in {keys.location}. "
        "Store it now:"
    )
    print_lines(text)


@keys_app.command("list")
def list_keys(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the keys, without their secrets, also those that are revoked or expired."""
    keys = _keys(state)
    found = keys.list()
    if as_json:
        print_json([{**key._asdict(), "state": key.state} for key in found])
        return
    if not found:
        print_error(f"{keys.location} has no keys: `voiceprint keys create` makes one.")
        return
    rows = [
        (
            key.key_id,
            key.name,
            ", ".join(key.roles),
            _galleries(key.galleries),
            key.state,
            key.expires_at or "",
        )
        for key in found
    ]
    table("Key", "Name", "Roles", "Galleries", "State", "Expires", rows=rows)


@keys_app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of the key, or the key itself.")], state: StateOption = None
) -> None:
    """Revoke a key. The next request with it is refused, by all workers."""
    revoked = _keys(state).revoke(key)
    print_lines(f"Revoked {revoked.key_id} ({revoked.name}).")


def _keys(state: str | None) -> ApiKeys:
    try:
        from voiceprint.server.database import ServerDatabase
        from voiceprint.server.keys import ApiKeys
        from voiceprint.server.settings import ServerSettings
    except ImportError as error:
        raise ConfigurationError(SERVER_EXTRA) from error
    return ApiKeys(ServerDatabase(state or ServerSettings().state))


def _galleries(names: tuple[str, ...] | None) -> str:
    return "all galleries" if names is None else ", ".join(names)


def _end(text: str | None) -> str | None:
    """The end of a key: a time, or a period from now on."""
    if text is None:
        return None
    from datetime import datetime, timezone

    from voiceprint.retention import parse_period
    from voiceprint.validation import check_time, now, shown

    try:
        return (datetime.now(timezone.utc) + parse_period(text)).isoformat()
    except ValueError:  # no period, and perhaps a time
        pass
    advice = "give a time to come, such as 2031-01-31, or a period, such as 90d."
    try:
        end = check_time(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"--expires is {shown(text)}: {advice}") from error
    if end is not None and end <= now():
        raise InvalidArgumentError(f"--expires is {shown(text)}, which is past: {advice}")
    return end
