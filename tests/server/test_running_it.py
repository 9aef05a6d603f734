"""The files and commands that run the service: container, unit, demo, dashboard, alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from postgres_server import fresh_url
from redis_server import fresh_database, shared_server
from serving import Running
from test_server_processes import AUDIO, VOICEPRINT, served
from voices import ROOT, SAMPLES

from voiceprint import VoiceFingerprintConfig
from voiceprint.server import ServerSettings
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys
from voiceprint.server.live.settings import LiveSettings

COMPOSE = ("compose.yaml", "compose.redis.yaml")


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())["services"]
    return found


# The container's files and the unit


def test_the_servers_requirements_are_those_of_its_extras() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    wanted = set()
    for extra in ("server", "postgresql", "encryption"):
        block = re.search(rf"^{extra} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        assert block is not None
        wanted |= set(re.findall(r'"([\w.-]+(?:\[binary)?)', block[1]))
    lines = (ROOT / "requirements-server.txt").read_text().splitlines()
    given = {line for line in lines if line and not line.startswith(("#", "--"))}
    assert {one.removesuffix("]") for one in given} == wanted | {"psycopg[binary"}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert {one.partition("[")[0] for one in given} <= pinned


def test_every_variable_of_the_files_is_a_setting() -> None:
    known = {f"VOICE_SERVER_{name.upper()}" for name in ServerSettings.model_fields}
    known |= {f"VOICE_SERVER_{name.upper()}" for name in LiveSettings.model_fields}
    known |= {f"VOICE_{name.upper()}" for name in VoiceFingerprintConfig.model_fields}
    for name in ("Dockerfile", "deploy/voiceprint.service", "docs/operations.md", *COMPOSE):
        used = set(re.findall(r"\bVOICE_[A-Z_]+[A-Z]\b", (ROOT / name).read_text()))
        assert used, name
        assert used - known - {"VOICE_CONFIG"} == set(), name


@pytest.mark.parametrize("name", COMPOSE)
def test_the_compose_files_give_the_service_no_rights(name: str) -> None:
    service = services(name)["voiceprint"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    # Longer than the service waits for its calls.
    assert int(service["stop_grace_period"].removesuffix("s")) > ServerSettings().shutdown_s
    (other,) = services(name).keys() - {"voiceprint"}
    assert service["depends_on"] == {other: {"condition": "service_healthy"}}
    assert "healthcheck" in services(name)[other]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSE)
def test_the_compose_files_environment_serves_real_stores(name: str, tmp_path: Path) -> None:
    """Two workers serve a real PostgreSQL or Redis in place of the container's."""
    server = fresh_url() if name == "compose.yaml" else shared_server().url(fresh_database())
    given = services(name)["voiceprint"]["environment"]
    environment = {
        name: server if re.match(r"(postgresql|redis)://", value) else value for name, value in given.items()
    }
    assert server in environment.values()
    image = dict(re.findall(r"(VOICE_[A-Z_]+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    del image["VOICE_SERVER_HOST"]
    environment = {
        name: value.replace("/var/lib/voiceprint", str(tmp_path))
        for name, value in {**image, **environment}.items()
    }
    database = ServerDatabase(environment["VOICE_SERVER_STATE"])
    headers = {"X-API-Key": ApiKeys(database).create(["admin"])[0]}
    database.close()
    with served(tmp_path, **environment) as (_, url):
        callers = f"{url}/v1/galleries/default/callers/amara/voiceprints"
        assert httpx.post(callers, content=AUDIO, headers=headers, timeout=60).status_code == 201
        answers = [
            httpx.post(f"{url}/v1/galleries/default/identify", content=AUDIO, headers=headers, timeout=60)
            for _ in range(4)  # each on a connection of its own, so that both workers answer
        ]
    assert {answer.json()["caller_id"] for answer in answers} == {"amara"}
    if name == "compose.redis.yaml":
        assert [file for file in tmp_path.iterdir() if "voiceprints" in file.name] == []


def test_the_unit_is_right_and_confined(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "voiceprint.service"
    text = (ROOT / "deploy/voiceprint.service").read_text()
    unit.write_text(text.replace("/opt/voiceprint/bin/voiceprint", str(VOICEPRINT)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # Of an exposure from 0 to 10, in tenths.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert float(re.search(r"TimeoutStopSec=(\d+)", text)[1]) > ServerSettings().shutdown_s


# The dashboard and the alerts


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bvoiceprint_\w+", text))


@pytest.fixture(scope="module")
def exposed(server: Running) -> set[str]:
    """The names of all series that /metrics can have: those without a value yet are declared there too."""
    text = httpx.get(f"{server.url}/metrics", headers=server.headers("audit"), timeout=60).text
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        found |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


def test_every_metric_of_the_dashboard_and_the_alerts_is_exposed(exposed: set[str]) -> None:
    panels = json.loads((ROOT / "deploy/grafana.json").read_text())["panels"]
    shown = {name for panel in panels for target in panel["targets"] for name in names_in(target["expr"])}
    groups = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    watched = {name for group in groups for rule in group["rules"] for name in names_in(rule["expr"])}
    assert len(shown) > 10
    assert len(watched) > 5
    assert (shown | watched) - exposed == set()
    hidden = {name for name in exposed if not name.endswith(("_created", "_sum", "_count"))} - shown - watched
    assert hidden == set(), "metrics that no panel shows"


def test_every_alert_says_what_to_do() -> None:
    groups = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["annotations"].keys() == {"summary", "action"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in (ROOT / "docs/operations.md").read_text()


# The health check and the demo


def voiceprint(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(VOICEPRINT), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=60
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_the_health_check_tells_a_ready_service_from_none(server: Running) -> None:
    port = server.url.rpartition(":")[2]
    done = voiceprint("health", VOICE_SERVER_PORT=port, VOICE_SERVER_HOST="0.0.0.0")
    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert voiceprint("health", "--url", f"{server.url}/").returncode == 0
    nobody = voiceprint("health", VOICE_SERVER_PORT=str(free_port()))
    assert nobody.returncode == 1
    assert "does not answer" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    assert voiceprint("health", "--url", "nonsense").returncode == 1
    # Another path than that of a service: no readiness there.
    not_ready = voiceprint("health", "--url", f"{server.url}/v1")
    assert not_ready.returncode == 1
    assert "is not ready" in not_ready.stderr


@pytest.mark.slow
def test_the_demo_serves_the_sample_voices_and_leaves_nothing(tmp_path: Path) -> None:
    port = str(free_port())
    command = [str(VOICEPRINT), "demo-server", "--port", port, "--voices", str(SAMPLES)]
    environment = {**os.environ, "VOICE_STORAGE_BACKEND": "none", "TMPDIR": str(tmp_path)}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=tmp_path,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        shown = ""
        while "Ctrl-C ends it" not in shown:
            shown += process.stdout.readline() or pytest.fail(process.stderr.read())
        assert f"http://127.0.0.1:{port}/console/\n" in shown
        key = re.search(r"^Key: +(\S+)$", shown, re.MULTILINE)
        assert key is not None
        while voiceprint("health", "--url", f"http://127.0.0.1:{port}").returncode:
            if process.poll() is not None:
                pytest.fail(process.stderr.read())
        commands = re.findall(r"@(\S+) \$URL(\S+)$", shown, re.MULTILINE)
        answers = [
            httpx.post(
                f"http://127.0.0.1:{port}/v1/galleries/default{path}",
                content=Path(file).read_bytes(),
                headers={"X-API-Key": key[1]},
                timeout=60,
            ).json()["caller_id"]
            for file, path in commands
        ]
        assert answers == ["amara", None]
        taken = voiceprint("demo-server", "--port", port, "--voices", str(SAMPLES))
        assert taken.returncode == 2
        assert "--port" in taken.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert [*tmp_path.iterdir()] == []
