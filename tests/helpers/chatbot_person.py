"""Somebody in front of the chatbot: what they do with the page in a real browser, and what they see."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
# Chromium itself finds no name and no address but this machine's, as without a network.
ARGUMENTS = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
WAIT_MS = 15_000
FIGURES = re.compile(r"\d+ tokens · [\d.]+ tokens/s · first token after \d+\.\d\d s$")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's browser, without a window."""
    assert CHROMIUM
    # Its sandbox does not start as root.
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """One person with a browser of their own."""

    def __init__(self, browser: Browser, url: str, key: str = "") -> None:
        # Certificates of tests are signed by nobody.
        self.context = browser.new_context(viewport={"width": 1200, "height": 760}, ignore_https_errors=True)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.refused: list[str] = []  # by the page's own policy: never sent
        self.faults: list[str] = []
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)
        self.page.on("console", self._console)
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(url)
        self.box = self.page.locator("#box textarea")
        self.chat = self.page.locator("#chat")
        expect(self.box).to_be_visible()
        if key:
            self.enter_key(key)

    def _request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob"):
            self.requests.append(request.url)

    def _failed(self, request: Request) -> None:
        if request.failure == "csp":
            self.refused.append(request.url)
            return
        # The page itself closes the stream of events once nothing is awaited.
        if not (request.failure == "net::ERR_ABORTED" and "/queue/data" in request.url):
            self.faults.append(f"{request.url}: {request.failure}")

    @property
    def asked(self) -> set[str | None]:
        """Hosts that the browser has sent requests to."""
        return {urlsplit(url).hostname for url in self.requests if url not in self.refused}

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.url}: {response.status}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def enter_key(self, key: str) -> None:
        """Type a key; the models are asked for when the field is left."""
        self.page.locator("#key input").fill(key)
        self.page.locator("#key input").press("Enter")

    def choose(self, model: str) -> None:
        self.page.locator("#model input").click()
        self.page.get_by_role("option", name=model).click()
        expect(self.page.locator("#model input")).to_have_value(model)

    def set(self, slider: str, value: str) -> None:
        """Type a number beside a slider."""
        field = self.page.locator(f"#{slider} input[type=number]")
        field.fill(value)
        field.press("Enter")

    def model_is(self, model: str) -> None:
        expect(self.page.locator("#model input")).to_have_value(model)

    def ask(self, text: str) -> None:
        """Send a message, and do not wait for the answer."""
        self.box.fill(text)
        self.page.get_by_role("button", name="Send").click()

    def stop(self) -> None:
        self.page.get_by_role("button", name="Stop").click()

    def press(self, name: str) -> None:
        """One of the small buttons under the last message that has it."""
        self.chat.get_by_role("button", name=name, exact=True).last.click()

    def edit(self, text: str) -> None:
        """Rewrite the last question."""
        self.press("Edit")
        self.chat.locator("textarea").last.fill(text)
        self.chat.get_by_role("button", name="Submit").last.click()

    def questions(self) -> list[str]:
        return [text.strip() for text in self.chat.locator(".message.user").all_inner_texts()]

    def is_answered(self, text: str) -> None:
        """Wait until the last answer has it."""
        expect(self.chat.locator(".message.bot").last).to_contain_text(text)

    def box_has(self, text: str) -> None:
        expect(self.box).to_have_value(text)

    def is_told(self, text: str) -> None:
        """Wait until it stands under the choice of models."""
        expect(self.page.locator("#trouble")).to_contain_text(text)

    def sees(self, text: str | re.Pattern[str]) -> None:
        """Wait until it is there."""
        expect(self.chat).to_contain_text(text)

    def figures(self) -> str:
        """Wait until the last answer has ended, and return the line under it."""
        last = self.chat.locator("small").last
        expect(last).to_have_text(FIGURES)
        return last.inner_text()
