"""Photographs the console for docs/console.md: `python -m tools.console_screenshots`.

Starts `voiceprint serve` in a temporary folder, with the sample voices enrolled by the default encoder, and
opens its pages in Debian's chromium.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from voiceprint import OpusAgentVoiceRecognizer, VoiceFingerprintConfig, load_audio
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
VOICES = ROOT / "examples" / "voices"
_WIDTH, _HEIGHT = 1000, 860  # of the window in pixels: docs pages show images of 800
_COLORS = 128  # of an image: the pages have few, and the file has a third of the size


def enroll(folder: Path) -> None:
    """Enroll three recordings of each sample caller, and keep the fourth for the trial."""
    config = VoiceFingerprintConfig(
        storage_path=str(folder / "voiceprints.json"), audit=str(folder / "audit")
    )
    with OpusAgentVoiceRecognizer(config=config) as recognizer:
        for caller in sorted(path for path in VOICES.iterdir() if path.is_dir()):
            for number in (1, 2, 3):
                audio, rate = load_audio(caller / f"{number}.flac")
                recognizer.enroll_caller(caller.name, audio, sample_rate=rate, source=f"{number}.flac")


def photograph(page: Page, name: str) -> None:
    """Write docs/images/console-NAME.png."""
    path = IMAGES / f"console-{name}.png"
    page.screenshot(path=path, full_page=name != "threshold")
    with Image.open(path) as image:
        image.convert("RGB").quantize(_COLORS).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


def visit(url: str, key: str) -> None:
    """Open the pages, and photograph them."""
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.goto(f"{url}/console/g/default/try")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Recording").set_input_files(VOICES / "bruno" / "4.flac")
        page.get_by_role("button", name="Identify").click()
        page.get_by_role("link", name="bruno").wait_for()
        photograph(page, "try")
        page.goto(f"{url}/console/g/default/threshold")
        photograph(page, "threshold")
        page.goto(f"{url}/console/g/default/caller?id=bruno")
        photograph(page, "caller")
        browser.close()


def main() -> None:
    """Serve the sample voices, and photograph the pages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enroll(folder)
        state = folder / "server.db"
        database = ServerDatabase(str(state))
        key = ApiKeys(database).create(("admin", "audit"), name="lead")[0]
        database.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = {
            "VOICE_STORAGE_PATH": str(folder / "voiceprints.json"),
            "VOICE_AUDIT": str(folder / "audit"),
            "VOICE_TARGET_FPIR": "0.01",
        }
        command = [sys.executable, "-m", "voiceprint", "serve", "--port", str(port), "--state", str(state)]
        server = subprocess.Popen(command, env={**os.environ, **variables})
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url)
            visit(url, key)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def wait_for(url: str) -> None:
    """Wait until the service answers."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit("The service did not start.")


if __name__ == "__main__":
    main()
