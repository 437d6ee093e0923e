#!/usr/bin/env python3
"""Compares grammars in Lark's notation with the lark package: which texts there are, and which grammars are refused.

    tests/grammar/lark_oracle_test.py build/tests/grammar_rule_texts

Random outputs of foe must be texts of lark's grammar, and of altered ones both must say the same. lark reads them with
its lexer "dynamic_complete", which like foe takes any way to cut a text into terminals.
"""

import json
import random
import subprocess
import sys
import unittest

import lark

GRAMMARS = {
    "sums": """
        ?start: sum
        ?sum: product | sum "+" product -> add | sum "-" product -> sub
        ?product: atom | product "*" atom -> mul | product "/" atom -> div
        ?atom: NUMBER -> number | "-" atom -> neg | NAME -> name | "(" sum ")"
        %import common.CNAME -> NAME
        %import common.NUMBER
        %import common.WS_INLINE
        %ignore WS_INLINE
    """,
    "json": r"""
        ?start: value
        ?value: object | array | string | SIGNED_NUMBER -> number | "true" | "false" | "null"
        array: "[" [_separated{value, ","}] "]"
        object: "{" [_separated{pair, ","}] "}"
        pair: string ":" value
        string: ESCAPED_STRING
        _separated{x, sep}: x (sep x)*
        %import common (ESCAPED_STRING, SIGNED_NUMBER, WS)
        %ignore WS
    """,
    "templates": """
        start: _many{word, /[;,]/} | _pair{_pair{"a", "b"}, NUMBER} | _tree{NUMBER}
        _many{item, sep}: item | _many{item, sep} sep item
        _pair{x, y}: x ":" y | y x
        _tree{leaf}: leaf | "<" _tree{leaf} _tree{leaf} ">"
        word: LETTER+
        NUMBER: DIGIT ~ 1..3
        %import common.DIGIT
        %import common.LETTER
    """,
    "comments": r"""
        start: statement+
        statement: NAME "=" expression ";"
        expression: NAME | INT | call
        call: NAME "(" [expression ("," expression)*] ")"
        NAME: /[a-z]{1,3}/
        %import common (INT, WS, C_COMMENT)
        %ignore WS
        %ignore "#" | "~"
        %declare UNUSED
    """,
    "changed": """
        start: "[" A b "]" | NUMBER
        b: A | B
        A: "a" | "x".."z"
        B.2: "ab" | /c+/i
        %import common.INT -> NUMBER
        %extend A: "q"
        %override B: "bb"
        %extend b: B A
    """,
}
# Grammars that lark refuses too, and what of foe's message says why.
REFUSED = {
    "start: a": "a rule for a",
    'start: "a"\nstart: "b"': "one rule for start",
    'start: s{"a"}\ns{x, y}: x y': "2 arguments for the template",
    'start: s{"a"}': "a template s",
    "start: A\n%import common.NOTHING": "a terminal of Lark's common",
    'start: "a"\n%extend b: "c"': "an earlier rule b",
    'start: "a': "a text that ends with its quote",
    'start: ("a"': "a )",
    'start: "a"\n%nothing A': "no directive but",
}
SAMPLES = 12
ALTERED = 25
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""


def ask(questions):
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    run = subprocess.run([PROGRAM], input=lines, capture_output=True, text=True, timeout=240, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def parser_of(grammar):
    return lark.Lark(grammar, parser="earley", lexer="dynamic_complete", ambiguity="resolve")


def is_text(parser, text):
    try:
        parser.parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


def altered(rng, text):
    """Returns the text with a character deleted, doubled, or another one in its place or before it."""
    at = rng.randrange(len(text) + 1)
    return rng.choice([text[:at] + text[at + 1:], text[:at] + rng.choice(" \n;,+()[]aZ1:\"#") + text[at:],
                       text[:at] + rng.choice(' ,"x0)]') + text[at + 1:], text[:at] + text[at:at + 2] * 2 + text[at + 2:]])


class LarkOracle(unittest.TestCase):
    def test_texts(self):
        rng = random.Random(3)
        for name, grammar in GRAMMARS.items():
            parser = parser_of(grammar)
            samples = ask([{"grammar": grammar, "texts": [], "samples": 5 * SAMPLES}])[0]["samples"]
            samples = [text for text in samples if 0 < len(text) < 60 and not text.startswith("dead")][:SAMPLES]
            self.assertGreaterEqual(len(samples), 4, name)
            for text in samples:
                with self.subTest(name, text=text):
                    self.assertTrue(is_text(parser, text))
            texts = sorted({altered(rng, text) for text in samples for _ in range(ALTERED)})
            right = 0
            for text, accepted in zip(texts, ask([{"grammar": grammar, "texts": texts, "samples": 0}])[0]["accepted"]):
                expected = is_text(parser, text)
                if "%ignore" in grammar and text[:1] in " \n\t#~":
                    expected = False  # foe ignores nothing before the first terminal
                right += expected
                with self.subTest(name, text=text):
                    self.assertEqual(accepted, expected)
            self.assertTrue(0 < right < len(texts), f"{name}: {right} of {len(texts)} altered texts are right")

    def test_refusals(self):
        for (grammar, reason), answer in zip(REFUSED.items(), ask(
                [{"grammar": grammar, "texts": [], "samples": 0} for grammar in REFUSED])):
            with self.subTest(grammar):
                self.assertIn(reason, answer["error"])
                with self.assertRaises((lark.exceptions.LarkError, AssertionError)):
                    parser_of(grammar)


if __name__ == "__main__":
    unittest.main()
