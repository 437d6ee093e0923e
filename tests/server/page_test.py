#!/usr/bin/env python3
"""Uses the server's page as people do, in headless Chromium: with a keyboard, on a phone, while ranks die.

    tests/server/page_test.py build/foe [--screenshots FOLDER]

Needs the package playwright, and Chromium in the PATH (Debian: chromium).
"""

import json
import os
import re
import shutil
import signal
import sys
import unittest
from pathlib import Path

import markdown_cases
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
PHONE = dict(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
SHOWN = markdown_cases.SHOWN


class Browser(unittest.TestCase):
    """Opens the page of a server that a derived class has started."""

    @classmethod
    def setUpClass(cls):
        cls.playwright = cls.enterClassContext(sync_playwright())
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)
        expect.set_options(timeout=1000 * PATIENCE_S)

    def open(self, state="2 ranks, plan foe", **options):
        context = self.browser.new_context(**options)  # with a storage of its own
        self.addCleanup(context.close)
        page = context.new_page()
        self.problems, self.sent = [], []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.problems.append(request.url)
                if not request.url.startswith((f"http://127.0.0.1:{self.server.port}/", "data:")) else None)
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("request", lambda request: request.post_data and self.sent.append(json.loads(request.post_data)))
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        expect(page.locator("#state")).to_contain_text(state)
        return page

    def set(self, page, **fields):
        page.locator("#settings").evaluate("details => details.open = true")
        for name, value in fields.items():
            page.fill("#system" if name == "system" else f"#field-{name}", str(value))
        page.locator("#settings").evaluate("details => details.open = false")

    def answered(self, page):
        expect(page.locator("#send")).to_be_enabled()

    def ask(self, page, text):
        page.fill("#text", text)
        page.press("#text", "Enter")
        expect(page.locator(".assistant").last).to_be_visible()
        self.answered(page)

    def messages(self, page):
        return page.evaluate("conversation.messages.map(message => message.content)")

    def force(self, page, *texts):
        """The server's next answers to the page are these texts."""
        texts = list(texts)

        def add_rule(route):
            rule = {"structured_outputs": {"choice": [texts.pop(0)]}, "stop_token_ids": [560], "max_tokens": 2000} if texts else {}
            route.continue_(post_data=json.dumps(json.loads(route.request.post_data) | rule))
        page.route("**/v1/chat/completions", add_rule)

    def picture(self, page, name):
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


class PageTest(Browser):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.enterClassContext(Server(2))

    def test_a_chat_by_keyboard_alone(self):
        page = self.open()
        self.set(page, temperature=0, max_tokens=20)
        page.keyboard.press("Alt+m")
        page.keyboard.type("hi there")
        page.keyboard.press("Enter")
        self.answered(page)
        expected = self.server.chat("hi there")["choices"][0]["message"]["content"]
        self.assertEqual(self.messages(page), ["hi there", expected])
        said = re.compile(r"^20 tokens · [\d.,]+ tokens/s · first after [\d.]+ m?s · cut at the most tokens$")
        expect(page.locator(".assistant .stats")).to_have_text(said)
        page.keyboard.type("and then?")
        page.keyboard.press("Enter")
        expect(page.locator(".assistant")).to_have_count(2)
        self.answered(page)
        page.keyboard.press("ArrowUp")
        expect(page.get_by_label("Edit your message")).to_have_value("and then?")
        page.keyboard.press("Escape")
        page.keyboard.press("Alt+n")
        expect(page.locator(".message")).to_have_count(0)
        self.assertEqual(page.evaluate("document.activeElement.id"), "text")
        self.assertEqual(self.problems, [])

    def test_stop_keeps_what_has_come(self):
        page = self.open()
        self.set(page, max_tokens=3000)
        page.fill("#text", "a long one")
        page.press("#text", "Enter")
        expect(page.locator(".assistant .body")).not_to_be_empty()
        page.keyboard.press("Escape")
        self.answered(page)
        wait_until(lambda: self.server.logged("client left"), "the server to hear of it")
        expect(page.locator(".assistant .stats")).to_contain_text("stopped")
        kept = self.messages(page)
        self.assertTrue(kept[1])
        self.set(page, max_tokens=5)
        self.ask(page, "another")
        self.assertEqual(self.sent[-1]["messages"], [{"role": "user", "content": "a long one"},
                                                     {"role": "assistant", "content": kept[1]},
                                                     {"role": "user", "content": "another"}])
        self.assertEqual(self.messages(page)[:3], [*kept, "another"])

    def test_stop_before_the_first_token(self):
        page = self.open()
        rank = self.server.ranks()[0]
        os.kill(rank, signal.SIGSTOP)  # the answer cannot begin before it is stopped
        try:
            page.fill("#text", "x")
            page.click("#send")
            page.click("#stop")
            self.answered(page)
        finally:
            os.kill(rank, signal.SIGCONT)
        expect(page.locator(".error:visible")).to_have_count(0)
        self.set(page, max_tokens=5)
        page.click("text=Regenerate")
        expect(page.locator(".assistant .body")).not_to_be_empty()
        self.answered(page)
        self.assertEqual(len(self.messages(page)), 2)

    def test_settings_and_the_system_prompt_are_sent(self):
        page = self.open()
        self.set(page, system="Be brief.", temperature=0.5, top_p=0.9, max_tokens=3, seed=7, stop="zzz")
        self.ask(page, "x")
        sent = self.sent[-1]
        self.assertEqual(sent.pop("messages"), [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}])
        self.assertEqual(sent, {"temperature": 0.5, "top_p": 0.9, "max_tokens": 3, "seed": 7, "stop": "zzz", "stream": True,
                                "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
        page.reload()
        expect(page.locator("#settings-note")).to_have_text(
            "system prompt, temperature 0.5, top p 0.9, most tokens 3, seed 7, stop at zzz")

    def test_edit_and_regenerate(self):
        page = self.open()
        self.set(page, temperature=0, max_tokens=5)
        for text in ["one", "two"]:
            self.ask(page, text)
        before = self.messages(page)
        page.click("text=Regenerate")
        self.answered(page)
        self.assertEqual(self.messages(page), before)
        page.locator(".user").first.get_by_text("Edit").click()
        page.get_by_label("Edit your message").fill("other")
        page.keyboard.press("Enter")
        expect(page.locator(".message")).to_have_count(2)
        self.answered(page)
        self.assertEqual(self.sent[-1]["messages"], [{"role": "user", "content": "other"}])
        page.locator(".assistant").get_by_text("Edit").click()
        page.get_by_label("Edit the answer").fill("what I say")
        page.click("text=Save")
        self.ask(page, "go on")
        self.assertEqual([turn["content"] for turn in self.sent[-1]["messages"]], ["other", "what I say", "go on"])
        before = self.messages(page)[-1]
        page.locator(".actions").get_by_text("Continue").click()  # it was cut at five tokens
        self.answered(page)
        after = self.messages(page)[-1]
        self.assertTrue(after.startswith(before) and len(after) > len(before), f"{before!r}, {after!r}")

    def test_conversations_survive_a_reload(self):
        page = self.open(viewport={"width": 1400, "height": 900})
        self.set(page, max_tokens=5)
        self.ask(page, "the first")
        first = self.messages(page)
        page.click("#clear")
        self.ask(page, "the second")
        page.reload()
        expect(page.locator(".message")).to_have_count(2)
        expect(page.locator("#conversations .title")).to_have_text(["the second", "the first"])
        page.click("#conversations >> text=the first")
        self.assertEqual(self.messages(page), first)
        page.click("[aria-label='Delete the first']")
        expect(page.locator("#conversations .title")).to_have_text(["the second"])
        expect(page.locator(".message")).to_have_count(0)
        page.click("#delete-all")
        self.assertEqual(page.evaluate("storedConversations().length"), 0)

        # However many and long they are, browsers can store them.
        def keep(many, characters):
            return page.evaluate("""([many, characters]) => {
                let kept;
                const messages = [{role: "user", content: "x".repeat(characters)}];
                for (let i = 0; i < many; ++i) kept = keep({...newConversation("chat", ""), messages});
                return [kept, storedConversations().length]; }""", [many, characters])
        self.assertEqual(keep(70, 10), [True, 50])
        self.assertEqual(keep(5, 600000), [True, 3])
        self.assertEqual(keep(1, 3000000)[0], False)
        page.evaluate("localStorage.setItem('foe.conversation.x', '{\"messages\": [1]}')")
        page.reload()
        expect(page.locator("#state")).to_contain_text("2 ranks")
        self.assertEqual(self.problems, [])

    def test_a_conversation_that_is_left_keeps_its_answer(self):
        page = self.open(viewport={"width": 1400, "height": 900})
        self.set(page, max_tokens=3000)
        page.fill("#text", "long")
        page.press("#text", "Enter")
        expect(page.locator(".assistant .body")).not_to_be_empty()
        page.click("#clear")
        self.answered(page)
        page.click("#conversations >> text=long")
        expect(page.locator(".assistant .body")).not_to_be_empty()
        expect(page.locator(".assistant .stats")).to_contain_text("stopped")

    def test_a_text_is_continued(self):
        page = self.open()
        self.set(page, temperature=0, max_tokens=8)
        page.select_option("#mode", "complete")
        self.ask(page, "It was")
        expected = self.server.text(prompt="It was", max_tokens=8)
        self.assertEqual(self.messages(page)[1], expected)
        page.locator(".actions").get_by_text("Continue").click()
        self.answered(page)
        expected += self.server.text(prompt="It was" + expected, max_tokens=8)
        self.assertEqual(self.messages(page)[1], expected)

    def test_errors_are_shown(self):
        page = self.open()
        self.set(page, max_tokens=100000)
        self.ask(page, "failed")
        expect(page.locator(".error:visible")).to_contain_text("max_tokens: expected an integer")
        self.set(page, max_tokens=2)
        self.ask(page, "again")
        self.assertEqual(self.sent[-1]["messages"], [{"role": "user", "content": "again"}])

    def test_markdown_is_shown_and_never_markup(self):
        page = self.open()
        self.force(page, SHOWN, "x")
        self.ask(page, "<img src=x onerror=document.title='broken'><b>bold</b>")
        self.assertEqual(self.messages(page)[1], SHOWN)
        self.assertEqual(page.locator("#messages").locator("img, script, b, iframe, svg, [onclick], [onerror]").count(), 0)
        links = page.locator("#messages a").evaluate_all("links => links.map(link => link.href)")
        self.assertEqual(links, ["https://example.org/"])
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("figure").get_by_text("Copy").click()
        expect(page.locator("figure button")).to_have_text("Copied")
        self.assertEqual(page.evaluate("navigator.clipboard.readText()"), "if a < b:\n    print('<b>')")
        self.assertEqual(page.title(), "foe")
        self.assertEqual(self.problems, [])

    def test_markdown_by_cases(self):
        page = self.open()
        for text, expected in markdown_cases.CASES:
            with self.subTest(text):
                self.assertEqual(page.evaluate("""text => {
                    const node = element("div");
                    showMarkdown(node, text);
                    return node.innerHTML; }""", text), expected)
        for text in markdown_cases.LONG:
            with self.subTest(text[:20]):
                self.assertLess(page.evaluate("""text => {
                    const node = element("div"), walker = document.createTreeWalker(node);
                    showMarkdown(node, text);
                    let deepest = 0;
                    while (walker.nextNode()) {
                      let depth = 0;
                      for (let up = walker.currentNode; up !== node; up = up.parentNode) ++depth;
                      deepest = Math.max(deepest, depth);
                    }
                    return deepest; }""", text), 100)
        # Growing, a text ends as what it would be at once, and blocks that are complete stay as they are.
        self.assertTrue(page.evaluate("""text => {
            const once = element("div"), growing = element("div");
            showMarkdown(once, text);
            let first = null;
            for (let i = 1; i <= text.length; ++i) {
              showMarkdown(growing, text.slice(0, i));
              if (text.slice(0, i).endsWith("\\n\\n")) first ??= growing.firstChild;
            }
            return growing.innerHTML === once.innerHTML && growing.firstChild === first; }""", SHOWN))

    def test_reasoning_is_folded(self):
        page = self.open()
        self.set(page, max_tokens=5)
        self.force(page, "<think>\nlet me see\n</think>\n\nyes")
        self.ask(page, "x")
        expect(page.locator(".assistant .body")).to_have_text("yes")
        reasoning = page.locator(".assistant .reasoning")
        expect(reasoning.locator(".plain")).to_be_hidden()
        reasoning.locator("summary").click()
        expect(reasoning.locator(".plain")).to_have_text("let me see")
        self.ask(page, "y")
        self.assertEqual(self.sent[-1]["messages"][1], {"role": "assistant", "content": "yes"})

    def test_the_engine_is_shown_live(self):
        self.server.text(prompt="It was", max_tokens=100)
        page = self.open(viewport={"width": 1400, "height": 900})
        expect(page.locator("#history text")).to_contain_text(["0", "2 min ago", "now"])
        # Of what was before it was opened.
        expect(page.locator("#history")).not_to_have_attribute("aria-label", re.compile("at most 0"))
        expect(page.locator("#layers")).to_have_text("0layer3")
        expect(page.locator("#experts")).to_have_text("0expert15")
        expect(page.locator("#load-note")).to_contain_text("Fullest: expert")
        expect(page.locator("#collectives")).to_contain_text("sum")
        expect(page.locator("#latencies")).to_contain_text("first token")
        self.assertGreater(page.evaluate("""() => {
            const canvas = document.getElementById('load');
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter(Boolean).length; }"""), 0)
        restarts = page.locator("#tiles div", has_text="Restarts").locator("dd")
        before = int(restarts.text_content())
        os.kill(self.server.ranks()[0], signal.SIGKILL)
        expect(restarts).to_have_text(str(before + 1))
        expect(page.locator("#state")).to_contain_text("2 ranks, plan foe")
        self.assertEqual(self.problems, [])

    def test_everything_has_a_name(self):
        page = self.open()
        self.set(page, max_tokens=2)
        self.ask(page, "x")
        page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
        for role in ["button", "textbox", "spinbutton", "combobox", "navigation", "region", "log", "img", "article"]:
            for found in page.get_by_role(role).all():
                named = page.get_by_role(role, name=re.compile(r"\S")).and_(found)
                self.assertEqual(named.count(), 1, found.evaluate("node => node.outerHTML"))

    def test_it_fits_screens(self):
        for options, widths in [(dict(), [1400, 900]), (PHONE, [360])]:
            page = self.open(**options)
            self.set(page, max_tokens=60)
            self.force(page, SHOWN)
            self.ask(page, "Please show me what you can, with a long word: " + "x" * 80)
            self.ask(page, "And then?")
            for opened in [False, True]:
                if opened:
                    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
                    page.locator(".user").first.get_by_text("Edit").click()
                for width in widths:
                    page.set_viewport_size({"width": width, "height": 740 if width == 360 else 900})
                    self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width)
                    for scheme in ["light", "dark"]:
                        page.emulate_media(color_scheme=scheme)
                        self.picture(page, f"{width}-{scheme}{'-open' * opened}")
            page.close()


class KeyTest(Browser):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.enterClassContext(Server(1, "--api-key", "sesame"))

    def test_the_key_is_asked_for(self):
        page = self.open("1 rank, plan")
        self.set(page, max_tokens=3)
        self.ask(page, "x")
        expect(page.locator(".error:visible")).to_contain_text("expected a valid API key")
        page.get_by_label("API key").fill("sesame")
        page.press("#key", "Tab")
        page.click("text=Regenerate")
        self.answered(page)
        expect(page.locator(".assistant .body")).not_to_be_empty()
        page.reload()
        expect(page.get_by_label("API key")).to_have_value("sesame")
        self.assertNotIn("sesame", page.evaluate("JSON.stringify(localStorage)"))


if __name__ == "__main__":
    if CHROMIUM is None:
        print("SKIPPED: no Chromium (Debian package chromium)")
        sys.exit(77)
    ARGS.foe = str(Path(sys.argv[1]).resolve())
    if "--screenshots" in sys.argv:
        at = sys.argv.index("--screenshots")
        SCREENSHOTS = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
