#!/usr/bin/env python3
"""What models write of calls of tools and of reasoning, end to end: a small model that `foe train` has taught to write it
(taught_model.py) is asked by the clients of three APIs, whole and streamed, cut, and with ranks that die meanwhile.

    tests/server/taught_test.py build/foe
    tests/server/taught_test.py build/foe -k Ways      # on one rank, without mpirun; other arguments are unittest's
"""

import json
import shutil
import sys
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path

import anthropic
import jsonschema
import openai

import serve_test
from restart_test import replace_mpirun
from serve_test import Server
from taught_model import (ALL, END, LAST, LOOP, MARKS, OSLO, REASONING_TEXTS, RESULT, SCHEMAS, TOOL_TEXTS, TOOLS, make_model,
                          template)

FOLDER = MODEL = None
MOST = 300  # tokens of an answer; all end before


def setUpModule():
    global FOLDER, MODEL
    FOLDER = Path(tempfile.mkdtemp(prefix="foe-taught-test-"))
    MODEL = make_model(serve_test.ARGS.foe, FOLDER)


def tearDownModule():
    shutil.rmtree(FOLDER)


@dataclass
class Answer:
    """What any of the APIs gives. The calls are (name, arguments), the arguments as text."""
    reasoning: str = ""
    content: str = ""
    calls: tuple = ()
    end: str = ""
    tokens: int = 0

    def read_calls(self):
        """The calls with their arguments, which must be what the tool takes."""
        read = [(name, json.loads(arguments)) for name, arguments in self.calls]
        for name, arguments in read:
            jsonschema.validate(arguments, SCHEMAS[name])
        return read


# --- the three APIs: whole answers, and what the pieces of streamed ones come to ---


class Chats:
    def __init__(self, server):
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)

    def ask(self, question, tools=TOOLS, max_tokens=MOST, **fields):
        messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
        return self.client.chat.completions.create(
            model="model", messages=messages, max_tokens=max_tokens, tools=tools or openai.NOT_GIVEN,
            **{"extra_body": fields.pop("extra", {})} | fields)

    def whole(self, question, **fields):
        answer = self.ask(question, **fields)
        choice = answer.choices[0]
        message = choice.message
        calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or []]
        return Answer((message.model_extra or {}).get("reasoning_content") or "", message.content or "", tuple(calls),
                      choice.finish_reason, answer.usage.completion_tokens)

    def streamed(self, question, **fields):
        """Sets `kinds` to what the deltas were, without what follows its own kind."""
        answer, calls, self.kinds = Answer(), [], []
        for chunk in self.ask(question, stream=True, stream_options={"include_usage": True}, **fields):
            if chunk.usage:
                answer.tokens = chunk.usage.completion_tokens
            if not chunk.choices:
                continue
            delta = chunk.choices[0].delta
            pieces = {"reasoning": (delta.model_extra or {}).get("reasoning_content"), "content": delta.content,
                      "calls": delta.tool_calls}
            self.kinds += [kind for kind, piece in pieces.items() if piece and kind not in self.kinds[-1:]]
            answer.reasoning += pieces["reasoning"] or ""
            answer.content += delta.content or ""
            for piece in delta.tool_calls or []:
                if piece.index == len(calls):
                    assert piece.id and piece.type == "function", piece
                    calls.append([piece.function.name, ""])
                calls[piece.index][1] += piece.function.arguments
            answer.end = chunk.choices[0].finish_reason or answer.end
        answer.calls = tuple(map(tuple, calls))
        return answer


class Responses:
    TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]

    def __init__(self, server):
        self.client = Chats(server).client

    def ask(self, question, max_tokens=MOST, **fields):
        return self.client.responses.create(model="model", input=question, max_output_tokens=max_tokens, tools=self.TOOLS,
                                            **fields)

    def read(self, response):
        texts = {"reasoning": "", "message": ""}
        for item in response.output:
            if item.type in texts:
                texts[item.type] += item.content[0].text
        calls = [(item.name, item.arguments) for item in response.output if item.type == "function_call"]
        return Answer(*texts.values(), tuple(calls), response.status, response.usage.output_tokens)

    def whole(self, question, **fields):
        return self.read(self.ask(question, **fields))

    def streamed(self, question, **fields):
        deltas = {}
        for event in self.ask(question, stream=True, **fields):
            if event.type.endswith(".delta"):
                deltas[event.output_index] = deltas.get(event.output_index, "") + event.delta
        ends = [item.arguments if item.type == "function_call" else item.content[0].text for item in event.response.output]
        assert list(deltas.values()) == ends, f"deltas {deltas}, at the end {ends}"
        return self.read(event.response)


class Messages:
    TOOLS = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS]

    def __init__(self, server):
        self.client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)

    def asked(self, question, max_tokens=MOST, **fields):
        return dict(model="model", messages=[{"role": "user", "content": question}], max_tokens=max_tokens, tools=self.TOOLS,
                    **fields)

    def read(self, message):
        texts = {"thinking": "", "text": ""}
        for block in message.content:
            if block.type in texts:
                texts[block.type] += getattr(block, block.type)
        calls = [(block.name, json.dumps(block.input)) for block in message.content if block.type == "tool_use"]
        return Answer(*texts.values(), tuple(calls), message.stop_reason, message.usage.output_tokens)

    def whole(self, question, **fields):
        return self.read(self.client.messages.create(**self.asked(question, **fields)))

    def streamed(self, question, **fields):
        with self.client.messages.stream(**self.asked(question, **fields)) as stream:
            return self.read(stream.get_final_message())


# --- tests ---


class Asking(unittest.TestCase):
    def server(self, ranks, *flags, signs="", ending=""):
        file = FOLDER / "template.jinja"
        file.write_text(template(signs, ending), "utf-8")
        return self.enterContext(Server(ranks, "--chat-template", file, *flags, model=MODEL))

    def both(self, api, question, **fields):
        """The whole answer, which the streamed one must equal."""
        whole, streamed = api.whole(question, **fields), api.streamed(question, **fields)
        self.assertEqual(whole, streamed)
        return whole

    def check(self, api, taught, **fields):
        """Asks for what was taught, and returns the answer."""
        answer = self.both(api, taught.question, **fields)
        self.assertEqual((answer.reasoning, answer.content), (taught.reasoning or "", taught.content or ""))
        self.assertEqual(answer.read_calls(), list(taught.calls))
        return answer


class Teaching(Asking):
    def test_the_model_writes_what_it_was_taught(self):
        """So that the other tests test what they say."""
        server = self.server(1)
        for texts in (*TOOL_TEXTS.values(), REASONING_TEXTS.values(), [ALL]):
            for taught in texts:
                prompt = f"{END}user: {taught.question}\nassistant:\n{taught.ending}"
                text = server.text(prompt=prompt, max_tokens=MOST, skip_special_tokens=False, include_stop_str_in_output=True)
                self.assertEqual(text.removesuffix(END), taught.text)
        self.assertEqual(len(server.tokens("".join(MARKS))), len(MARKS))

    def test_a_conversation_with_a_tool(self):
        api = Chats(self.server(1, signs="<tool_call></tool_call> <think></think>"))
        for ask in (api.whole, api.streamed):
            answer = ask(LOOP.question)
            self.assertEqual(answer.read_calls(), [OSLO])
            name, arguments = answer.calls[0]
            call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
            answer = ask([{"role": "user", "content": LOOP.question}, {"role": "assistant", "tool_calls": [call]},
                          {"role": "tool", "tool_call_id": "call_1", "content": RESULT}])
            self.assertEqual((answer.content, answer.calls, answer.end), (LAST, (), "stop"))


class Ways(Asking):
    """Each way of writing calls, and each of writing reasoning, on a server of its own."""

    def check_way(self, tools, reasoning, *flags, signs="", thought="think", texts=None):
        thought = REASONING_TEXTS[thought]
        server = self.server(1, *flags, signs=signs, ending=thought.ending)
        for expected in (f"calls of tools are read as {tools} writes them", f"reasoning is read as {reasoning} writes it"):
            self.assertTrue(server.logged(expected), expected)
        api = Chats(server)
        for taught in TOOL_TEXTS[tools] if texts is None else texts:
            fields = {"extra": {"chat_template_kwargs": {"enable_thinking": False}}}
            self.check_text(api, taught, "tool_calls", fields)
            first = self.both(api, taught.question, parallel_tool_calls=False, **fields)
            self.assertEqual(first.read_calls(), list(taught.calls[:1]))
            self.assertEqual(self.both(api, taught.question, tools=None, **fields).calls, ())
        self.check_text(api, thought, "stop", {})
        without = self.both(api, thought.question, extra={"include_reasoning": False})
        self.assertEqual((without.reasoning, without.content), ("", thought.content))

    def check_text(self, api, taught, end, fields):
        """The answer as it was taught, and cut by max_tokens."""
        answer = self.check(api, taught, **fields)
        self.assertEqual(answer.end, end)
        parts = {"reasoning": answer.reasoning, "content": answer.content, "calls": answer.calls}
        self.assertEqual(api.kinds, [kind for kind, part in parts.items() if part])
        for most in range(1, answer.tokens, max(1, answer.tokens // 7)):
            cut = self.both(api, taught.question, max_tokens=most, **fields)
            self.assertEqual((cut.end, cut.tokens), ("length", most))
            self.assertIn(cut.reasoning.rstrip(), taught.text)  # perhaps with the beginning of the mark behind it
            self.assertEqual(cut.read_calls(), list(taught.calls[:len(cut.calls)]))
            self.assertTrue(cut.calls == () or most > 1)

    # Those that the template shows.

    def test_hermes_and_qwen3(self):
        self.check_way("hermes", "qwen3", signs='<tool_call>{"name": NAME}</tool_call> <think></think>')

    def test_qwen3_coder(self):
        self.check_way("qwen3_coder", "qwen3", signs="<tool_call><function=NAME></function></tool_call> </think>")

    def test_glm45_and_seed_oss(self):
        self.check_way("glm45", "seed_oss", signs="<tool_call>NAME<arg_key>KEY</arg_key> <seed:think>", thought="seed_oss")

    def test_mistral(self):
        self.check_way("mistral", "mistral", signs="[TOOL_CALLS] [THINK]", thought="mistral")

    def test_deepseek_v3_and_r1(self):
        self.check_way("deepseek_v3", "deepseek_r1", signs="<｜Assistant｜><｜tool▁calls▁begin｜></think>", thought="begun")

    def test_llama3_json_and_minimax_m2(self):
        self.check_way("llama3_json", "minimax_m2", thought="begun",
                       signs='{"name": NAME, "parameters": dictionary of argument name and its value} ]~b]</think>')

    def test_pythonic(self):
        self.check_way("pythonic", "olmo3", "--reasoning-parser", "olmo3", signs="[func_name1(params_name1=params_value1)]")

    def test_gpt_oss(self):
        self.check_way("openai", "openai_gptoss", signs="<|channel|>analysis<|message|>", thought="openai_gptoss")

    def test_granite(self):
        self.check_way("granite", "granite", thought="granite", signs="<|tool_call|> Here is my thought process: Here is my response:")

    def test_granite_20b_and_gemma4(self):
        self.check_way("granite-20b-fc", "gemma4", thought="gemma4", signs="<function_call> <|channel>thought")

    def test_hunyuan(self):
        self.check_way("hunyuan_a13b", "hunyuan_a13b", thought="hunyuan_a13b", signs="<tool_calls>[ <think></think>")

    def test_gemma4_and_ernie45(self):
        self.check_way("gemma4", "ernie45", thought="ernie45", signs="<|tool_call>call: <think></think> </response>")

    def test_command(self):
        self.check_way("cohere_command3", "cohere_command4", thought="cohere_command4",
                       signs="<|START_ACTION|> <|START_THINKING|> <|START_TEXT|>")

    # Those that flags choose.

    def test_command4_and_command3(self):
        self.check_way("cohere_command4", "cohere_command3", "--tool-call-parser", "cohere_command4", "--reasoning-parser",
                       "cohere_command3", thought="cohere_command3")

    def test_granite4_and_ernie45(self):
        for name in ("granite4", "ernie45"):
            with self.subTest(name):
                self.check_way(name, "ernie45", "--tool-call-parser", name, "--reasoning-parser", "ernie45", thought="ernie45")

    def test_deepseek_v31_and_v3(self):
        self.check_way("deepseek_v31", "deepseek_v3", "--tool-call-parser", "deepseek_v31", "--reasoning-parser", "deepseek_v3")

    def test_llama4_pythonic_and_step3(self):
        self.check_way("llama4_pythonic", "step3", "--tool-call-parser", "llama4_pythonic", "--reasoning-parser", "step3",
                       thought="begun")

    def test_other_names_of_reasoning(self):
        for name in ("glm45", "glm47", "holo2", "kimi_k2", "mimo", "nemotron_v3", "step3p5"):
            with self.subTest(name):
                self.check_way("hermes", name, "--tool-call-parser", "hermes", "--reasoning-parser", name, texts=[])


class Budgets(Asking):
    def test_reasoning_ends_when_its_budget_is_used_up(self):
        server = self.server(1, signs="<think></think>")
        chats, messages = Chats(server), Messages(server)
        taught = REASONING_TEXTS["think"]
        begin, end = server.tokens("<think></think>")
        whole = self.check(chats, taught)
        asked = dict(messages=[{"role": "user", "content": taught.question}], max_tokens=MOST, return_token_ids=True)
        for budget in (0, 1, 4):
            answer = server.complete("/v1/chat/completions", thinking_token_budget=budget, **asked)
            ids = answer["choices"][0]["token_ids"]
            self.assertEqual((ids[0], ids.index(end)), (begin, 1 + budget))
            self.assertEqual(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], budget + 2)
            chat = self.both(chats, taught.question, extra={"thinking_token_budget": budget})
            self.assertTrue(whole.reasoning.startswith(chat.reasoning))
            self.assertLess(len(chat.reasoning), len(whole.reasoning))
            if budget > 0:
                message = self.both(messages, taught.question, thinking={"type": "enabled", "budget_tokens": budget})
                self.assertEqual((message.reasoning, message.content), (chat.reasoning, chat.content))
        self.assertEqual(self.both(chats, taught.question, extra={"thinking_token_budget": 200}), whole)


class Restarts(Asking):
    """A rank of two dies when so many tokens of an answer have come: nobody can tell from the answer."""

    def setUp(self):
        # See deadly_mpirun.py: each line of the file is a death.
        self.deaths = Path(self.enterContext(tempfile.TemporaryDirectory())) / "deaths"
        program = Path(__file__).resolve().with_name("deadly_mpirun.py")
        replace_mpirun(self, f'exec {sys.executable} {program} @{self.deaths} {shutil.which("mpirun")} "$@"')

    def test_a_rank_may_die_in_reasoning_content_and_calls(self):
        server = self.server(2, "--restarts", 100, signs="<tool_call></tool_call> <think></think>")
        begin = len(server.tokens(ALL.text[:ALL.text.index("</think>") // 2]))
        content = len(server.tokens(ALL.text[:ALL.text.index(ALL.content) + 6]))
        calls = [len(server.tokens(ALL.text[:ALL.text.index(name) + 30])) for name in ("note", 'weather"')]
        self.assertTrue(1 < begin < content < calls[0] < calls[1])
        places = [begin, content, *calls]
        losses = 0
        for api, end in ((Chats(server), "tool_calls"), (Messages(server), "tool_use"), (Responses(server), "completed")):
            expected = self.check(api, ALL)
            self.assertEqual(expected.end, end)
            # One in each part, where those who count begin at 0 after a death; in chats also one within a call alone.
            ways = [[after - before for before, after in zip([0, *places], places)]]
            ways += [[calls[1]]] if isinstance(api, Chats) else []
            for way in ways:
                with self.subTest(api=type(api).__name__, tokens_before_deaths=way):
                    losses += len(way)
                    self.deaths.write_text("".join(f"{tokens} {i % 2}\n" for i, tokens in enumerate(way, losses)))
                    self.assertEqual(api.streamed(ALL.question), expected)
                    self.assertEqual(self.deaths.read_text(), "")
                    self.assertEqual(len(server.logged("the ranks are lost")), losses)


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
