"""The console in a real browser: by keyboard, by microphone, at two widths, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Watched, chromium, write_wav
from console_client import live_call, speak
from playwright.sync_api import Browser, Page, expect
from serving import Running
from voices import RATE, SAMPLES, load_voices

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

VOICES = load_voices()
PAGES = (
    "", "g/default/callers", "g/default/caller?id=amara", "g/default/enroll", "g/default/delete?id=amara",
    "g/default/try", "g/default/threshold", "g/default/live", "g/default/call?id=call-1", "g/default/audit",
    "g/default/caller?id=nobody",
)  # fmt: skip
LOOKS = [(380, "light"), (1600, "light"), (380, "dark"), (1600, "dark")]


@pytest.fixture(scope="module", autouse=True)
def enrolled(server: Running) -> None:
    """The sample callers, each with two voiceprints, and a call that has ended."""
    recognizer = server.service.recognizer("default")
    for caller, utterances in VOICES.items():
        for audio in utterances[:2]:
            recognizer.enroll_caller(caller, audio, {"name": caller.title()})
    with live_call(server, "call-1") as socket:
        speak(socket, VOICES["amara"][3])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser whose microphone hears Bruno."""
    path: Path = tmp_path_factory.mktemp("microphone") / "bruno.wav"
    write_wav(path, VOICES["bruno"][3])
    expect.set_options(timeout=20_000)  # on a machine that is busy with other tests
    with chromium(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def watched(browser: Browser, server: Running) -> Iterator[Watched]:
    """A page that is signed in as an administrator."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    opened = Watched(context, server.url)
    sign_in(opened.page, server, server.key("admin", "audit", name="lead"))
    yield opened
    context.close()


@pytest.fixture
def page(watched: Watched) -> Iterator[Page]:
    yield watched.page
    assert watched.complaints == []


def sign_in(page: Page, server: Running, key: str) -> None:
    page.goto(f"{server.url}/console/")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/console/")


def test_a_wrong_key_is_said_beside_the_field(browser: Browser, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/console/g/default/audit")
    page.get_by_label("API key").fill("vp_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    # And then to the page that was asked for.
    page.get_by_label("API key").fill(server.key("audit"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Audit log")
    context.close()


def test_the_first_key_press_skips_to_the_content(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_the_overview_follows_by_itself_until_it_is_paused(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/")
    row = page.get_by_role("row").filter(has_text="default")
    expect(row).to_contain_text("18")
    server.service.recognizer("default").enroll_caller("late", VOICES["gil"][2])
    expect(row).to_contain_text("19")
    page.get_by_role("button", name="Pause updates").click()
    expect(page.get_by_role("button", name="Resume updates")).to_be_visible()
    server.service.recognizer("default").delete_caller("late")


def test_a_caller_is_found_opened_and_deleted_with_a_receipt(page: Page, server: Running) -> None:
    server.service.recognizer("default").enroll_caller("zoe", VOICES["gil"][2], {"name": "Zoe"})
    page.goto(f"{server.url}/console/g/default/callers")
    page.get_by_label("Id begins with").fill("zo")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="zoe").click()
    expect(page.get_by_text("Zoe", exact=True)).to_be_visible()
    page.get_by_role("link", name="Delete this caller").click()
    page.get_by_label("Type the id of the caller").fill("zoe")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Receipt of a deletion")
    expect(page.get_by_text("Complete")).to_be_visible()
    assert _faults(page) == []
    assert server.service.recognizer("default").storage.get("zoe") is None


def test_a_recording_is_enrolled(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/g/other/enroll")
    page.get_by_label("Caller id").fill("new caller")
    page.get_by_label("Recording").set_input_files(SAMPLES / "gil" / "1.flac")
    page.get_by_role("button", name="Enroll").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("new caller")
    server.service.recognizer("other").delete_caller("new caller")


def test_a_file_is_identified(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/g/default/try")
    page.get_by_label("Recording").set_input_files(SAMPLES / "carlo" / "4.flac")
    page.get_by_role("button", name="Identify").click()
    expect(page.locator("[data-answer]")).to_contain_text("carlo")
    expect(page.locator("[data-mark]")).not_to_have_attribute("visibility", "hidden")
    expect(page.locator("[data-says]")).to_contain_text("0 score as high")
    assert _faults(page) == []


def test_a_voice_is_identified_while_it_speaks(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/g/default/try")
    level = "document.getElementById('level').value"
    assert page.evaluate(level) == -60
    page.get_by_role("button", name="Start").click()
    answer = page.locator("[data-answer]")
    expect(answer).to_contain_text("so far")
    expect(answer).to_contain_text("bruno")
    assert page.evaluate(level) > -60
    expect(page.locator("[data-mark]")).to_have_attribute("visibility", "visible")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    expect(answer).to_contain_text("Accepted")
    expect(answer).not_to_contain_text("so far")
    assert page.evaluate(level) == -60


def test_the_slider_moves_the_line_and_its_target_is_saved(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/g/default/threshold")
    slider, line = page.get_by_role("slider"), page.locator("[data-line]")
    places = []
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
        places.append(float((line.get_attribute("x1") or "").rstrip("%")))
    assert places == sorted(places)  # a stricter target lies to the right
    assert places[0] < places[-1]
    chosen = page.get_by_label("Target in percent").input_value()
    expect(page.locator("[data-fpir]")).to_have_text(f"{chosen} %")
    page.get_by_role("button", name="Save as target").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert server.service.recognizer("default").config.target_fpir == pytest.approx(float(chosen) / 100)
    page.get_by_role("button", name="Return to the configured rule").click()
    expect(page.get_by_text("from a similarity of")).to_be_visible()


def test_the_pages_work_without_scripts(browser: Browser, server: Running) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, server, server.key("admin", galleries=["default"]))
    page.goto(f"{server.url}/console/g/default/try")
    expect(page.get_by_text("This needs JavaScript")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_hidden()
    page.get_by_label("Recording").set_input_files(SAMPLES / "carlo" / "4.flac")
    page.get_by_role("button", name="Identify").click()
    expect(page.locator("[data-answer]")).to_contain_text("carlo")
    context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_page_is_accessible_and_fits(
    browser: Browser, server: Running, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = Watched(context, server.url)
    page, faults = opened.page, []
    page.goto(f"{server.url}/console/login")
    faults += _faults(page)
    sign_in(page, server, server.key("admin", "audit"))
    for path in PAGES:
        page.goto(f"{server.url}/console/{path}")
        faults += _faults(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()
    assert faults == []
    assert opened.complaints == []


def _faults(page: Page) -> list[str]:
    """The faults that axe-core finds on a page, of any gravity."""
    results = axe.Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        f"{page.url}: {fault['id']} ({fault['impact']}): {fault['nodes'][0]['html'][:120]}"
        for fault in results.response["violations"]
    ]


def test_a_call_is_followed_while_it_lasts(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/g/default/live")
    with live_call(server, "call-2") as socket:
        speak(socket, VOICES["elena"][3][:RATE])
        page.get_by_role("link", name="call-2").click()
        expect(page.get_by_text("Running answer")).to_be_visible()
        speak(socket, VOICES["elena"][3])
        expect(page.get_by_role("status")).to_have_text("Accepted elena")
        assert _faults(page) == []
    expect(page.get_by_role("heading", name="Answer", exact=True)).to_be_visible()
    page.goto(f"{server.url}/console/g/default/live")
    expect(page.get_by_role("row").filter(has_text="call-2")).to_contain_text("elena")


def test_signing_out_leads_to_the_sign_in(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/console/")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/console/login$"))
    page.goto(f"{server.url}/console/g/default/callers")
    expect(page.get_by_label("API key")).to_be_visible()
