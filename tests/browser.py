"""A real browser for the tests: Debian's chromium by Playwright, with a microphone that plays a recording."""

from __future__ import annotations

import os
import shutil
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from voices import RATE, Audio

_QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
_MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def binary() -> str:
    """The browser to run. Where there is none, the test fails in CI and is skipped elsewhere."""
    found = shutil.which("chromium")
    if found is None:
        shown = "chromium is not installed: it is needed to test the console"
        if os.environ.get("CI"):
            pytest.fail(shown)
        pytest.skip(shown)
    return found


@contextmanager
def chromium(microphone: Path) -> Iterator[Browser]:
    """A browser whose microphone plays a WAV file, again and again."""
    arguments = [*_QUIET, *_MICROPHONE, f"--use-file-for-fake-audio-capture={microphone}"]
    path = binary()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def write_wav(path: Path, audio: Audio) -> None:
    """Write audio, float32[n] at 16 kHz, as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((audio * 32767).astype("<i2").tobytes())


class Watched:
    """A page, and all that it complains of: errors, breaches of its policy, requests to another host."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        host = urlsplit(url).netloc

        def request(address: str) -> None:
            if urlsplit(address).netloc != host:
                self.complaints.append(f"a request to {address}")

        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda made: request(made.url))
        self.page.on("websocket", lambda made: request(made.url))

    def _note(self, kind: str, text: str) -> None:
        # The browser says this of each page that is an error, such as 404.
        if kind in ("error", "warning") and "the server responded with a status of" not in text:
            self.complaints.append(text)
