#!/usr/bin/env python3
"""Uses the server's page as people do, in headless Chromium: with a keyboard, on a phone, while ranks die.

    tests/server/page_test.py build/foe [--screenshots FOLDER]

Needs the package playwright, and Chromium in the PATH (Debian: chromium).
"""

import os
import shutil
import signal
import sys
import unittest
from pathlib import Path

import serve_test
from serve_test import ARGS, PATIENCE_S, Server, wait_until

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    print("SKIPPED: no playwright; 'make test' installs it when it can reach PyPI")
    sys.exit(77)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = None
setUpModule, tearDownModule = serve_test.setUpModule, serve_test.tearDownModule


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(2))
        cls.playwright = cls.enterClassContext(sync_playwright())
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)
        expect.set_options(timeout=1000 * PATIENCE_S)

    def open(self, **options):
        page = self.browser.new_page(**options)
        self.addCleanup(page.close)
        self.problems = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.problems.append(request.url)
                if not request.url.startswith((f"http://127.0.0.1:{self.server.port}/", "data:")) else None)
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        expect(page.locator("#state")).to_contain_text("2 ranks, plan foe")
        return page

    def picture(self, page, name):
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)

    def test_a_chat_by_keyboard_alone(self):
        page = self.open()
        page.keyboard.press("Tab")  # the conversation, which scrolls
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.id"), "text")
        page.fill("#temperature", "0")
        page.fill("#tokens", "20")
        page.focus("#text")
        page.keyboard.type("hi there")
        page.keyboard.press("Enter")
        expect(page.locator("#send")).to_be_enabled()
        expected = self.server.chat("hi there")["choices"][0]["message"]["content"]
        self.assertEqual(page.locator(".assistant").text_content(), expected)
        page.keyboard.type("and then?")
        page.keyboard.press("Enter")
        expect(page.locator(".assistant")).to_have_count(2)
        expect(page.locator("#send")).to_be_enabled()
        self.picture(page, "desktop")
        self.assertEqual(self.problems, [])

    def test_stop_ends_an_answer(self):
        page = self.open()
        page.fill("#text", "a long one")
        rank = self.server.ranks()[0]
        os.kill(rank, signal.SIGSTOP)  # the answer cannot end before it is stopped
        try:
            page.click("#send")
            page.click("#stop")
            expect(page.locator("#send")).to_be_enabled()
            wait_until(lambda: self.server.logged("client left"), "the server to hear of it")
        finally:
            os.kill(rank, signal.SIGCONT)
        expect(page.locator(".error")).to_have_count(0)
        page.fill("#text", "another")
        page.click("#send")
        expect(page.locator(".assistant").last).not_to_be_empty()
        expect(page.locator("#send")).to_be_enabled()

    def test_errors_are_shown(self):
        page = self.open()
        page.fill("#tokens", "100000")
        page.fill("#text", "x")
        page.click("#send")
        expect(page.locator(".error")).to_contain_text("max_tokens: expected an integer")

    def test_text_is_never_markup(self):
        page = self.open()
        page.fill("#tokens", "1")
        page.fill("#text", "<img src=x onerror=document.title='broken'><b>bold</b>")
        page.click("#send")
        expect(page.locator("#send")).to_be_enabled()
        self.assertEqual(page.locator("#messages b, #messages img").count(), 0)
        self.assertEqual(page.title(), "foe")

    def test_the_engine_is_shown_live(self):
        page = self.open()
        self.server.text(prompt="It was", max_tokens=100)
        expect(page.locator("#load-note")).to_contain_text("Fullest: expert")
        expect(page.locator("#collectives")).to_contain_text("sum")
        expect(page.locator("#latencies")).to_contain_text("first token")
        self.assertGreater(page.evaluate("""() => {
            const canvas = document.getElementById('load');
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter(Boolean).length; }"""), 0)
        os.kill(self.server.ranks()[0], signal.SIGKILL)
        expect(page.locator("#tiles div", has_text="Restarts").locator("dd")).to_have_text("1")
        expect(page.locator("#state")).to_contain_text("2 ranks, plan foe")
        self.assertEqual(self.problems, [])

    def test_it_fits_a_phone(self):
        page = self.open(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
        page.fill("#tokens", "5")
        page.fill("#text", "hi")
        page.tap("#send")
        expect(page.locator("#send")).to_be_enabled()
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        self.picture(page, "phone")


if __name__ == "__main__":
    if CHROMIUM is None:
        print("SKIPPED: no Chromium (Debian package chromium)")
        sys.exit(77)
    ARGS.foe = str(Path(sys.argv[1]).resolve())
    if "--screenshots" in sys.argv:
        SCREENSHOTS = sys.argv[sys.argv.index("--screenshots") + 1]
    unittest.main(argv=sys.argv[:1])
