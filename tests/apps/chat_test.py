#!/usr/bin/env python3
"""Conversations with `foe chat`, through a pipe and at a terminal.

    tests/apps/chat_test.py build/foe

The shipped model's template puts messages one after the other, so the prompt of each answer is known here. Standard
library only.
"""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "moe-8m"
PATIENCE_S = 120
FOE = None
FIRST, SECOND = "Anne had always been of opinion", "It was a very fine morning"


def foe(*arguments, stdin=""):
    return subprocess.run([FOE, *map(str, arguments)], input=stdin, text=True, capture_output=True, timeout=PATIENCE_S)


def chat(lines, *flags, model=MODEL):
    return foe("chat", model, "--temperature", 0, "--max-tokens", 12, *flags, stdin=lines)


def continued(prompt, tokens=12):
    """What the model says after a text, without the text."""
    result = foe("generate", MODEL, "--prompt", prompt, "--max-tokens", tokens, "--temperature", 0)
    assert result.returncode == 0, result.stderr
    return result.stdout[len(prompt):].rstrip("\n")


class ThroughAPipe(unittest.TestCase):

    def test_answers_follow_the_conversation_so_far(self):
        first = continued(FIRST + "\n\n")
        second = continued(f"{FIRST}\n\n{first.strip()}\n\n{SECOND}\n\n")
        result = chat(f"{FIRST}\n\n   \n{SECOND}\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout, f"{first}\n{second}\n")

    def test_new_forgets(self):
        result = chat(f"{FIRST}\n/new\n{FIRST}")
        answer = continued(FIRST + "\n\n")
        self.assertEqual(result.stdout, f"{answer}\n{answer}\n")

    def test_a_system_message_comes_first(self):
        result = chat(FIRST, "--system", SECOND)
        self.assertEqual(result.stdout, continued(f"{SECOND}\n\n{FIRST}\n\n") + "\n")

    def test_nothing_to_answer(self):
        result = chat("")
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_a_full_context_is_an_error(self):
        result = chat("word " * 40, "--kv-tokens", 16)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"the conversation has \d+ tokens, but there is room for 16")

    def test_answers_end_where_the_room_ends(self):
        result = foe("chat", MODEL, "--temperature", 0, "--kv-tokens", 32, stdin=FIRST)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(len(result.stdout), 20)

    def test_a_model_without_a_template(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(MODEL, folder, dirs_exist_ok=True)
            os.remove(Path(folder) / "tokenizer_config.json")
            result = chat(FIRST, model=folder)
            self.assertEqual(result.returncode, 1)
            self.assertIn("--chat-template", result.stderr)
            template = Path(folder) / "own.jinja"
            template.write_text("{% for m in messages %}{{ m.content }}\n\n{% endfor %}")
            result = chat(FIRST, "--chat-template", template, model=folder)
            self.assertEqual(result.stdout, continued(FIRST + "\n\n") + "\n")

    def test_a_line_without_end(self):
        result = chat("x" * (17 << 20))
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard input: expected lines of at most", result.stderr)


class AtATerminal(unittest.TestCase):

    def setUp(self):
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.execv(FOE, [FOE, "chat", str(MODEL), "--temperature", "0"])
        self.pid = pid
        self.addCleanup(self.end)
        self.seen = ""

    def end(self):
        os.close(self.terminal)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def read_until(self, pattern):
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.seen):
            self.assertTrue(select.select([self.terminal], [], [], deadline - time.monotonic())[0], self.seen)
            self.seen += os.read(self.terminal, 4096).decode(errors="replace").replace("\r\n", "\n")
        self.seen = self.seen[re.search(pattern, self.seen).end():]

    def send(self, text):
        os.write(self.terminal, text.encode())

    def test_ctrl_c_stops_the_answer_and_ctrl_d_the_program(self):
        self.read_until("\n> ")
        self.send(FIRST + "\n")
        self.read_until(re.escape(FIRST) + "\n.*?\\w")  # the answer has begun
        self.send("\x03")
        self.read_until(r"tokens/s\]\n\n> ")
        self.send("word " * 700 + "\n")
        self.read_until("the conversation has .*/new.*\n\n> ")
        self.send("\x04")
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        self.assertEqual(status, 0)

    def test_ctrl_c_at_the_prompt_ends(self):
        self.read_until("\n> ")
        self.send("\x03")
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        self.assertEqual(os.WTERMSIG(status), signal.SIGINT)


if __name__ == "__main__":
    FOE = sys.argv.pop(1)
    unittest.main()
