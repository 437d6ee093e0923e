#!/usr/bin/env python3
"""Talks to `foe serve` with the clients of other APIs than OpenAI's chats: Anthropic's messages and OpenAI's responses.

    tests/server/other_apis_test.py build/foe

The model is that of serve_test.py, whose texts are nonsense. A rule for the text stands for what a model has learnt to write.
"""

import json
import os
import signal
import sys
import unittest
from pathlib import Path

import anthropic
import jsonschema
import openai
import pydantic

import serve_test
from serve_test import CONTEXT, Server, setUpModule, tearDownModule, wait_until  # noqa: F401

KEY = "secret"
# What the template gets is in the prompt; <tool_call> tells the server how calls are written.
TEMPLATE = ("{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{{ m.tool_calls | tojson if m.tool_calls else '' }}\n"
            "{% endfor %}{{ tools | tojson if tools else '' }}{% if add_generation_prompt %}assistant:{% endif %}"
            "{# <tool_call> #}")
ENDS = {"stop_token_ids": [0]}  # the model has no token that ends a text, which rules for the text need


def only(text):
    """The answer is this text."""
    return ENDS | {"structured_outputs": {"choice": [text]}}


HI = [{"role": "user", "content": "hi there"}]
CITY = {"type": "object", "required": ["city"], "additionalProperties": False,
        "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}}


class OneServer(unittest.TestCase):
    server = None

    @classmethod
    def setUpClass(cls):
        template = serve_test.MODEL.parent / "template.jinja"
        template.write_text(TEMPLATE)
        cls.server = Server(2, "--chat-template", template, "--api-key", KEY)
        cls.enterClassContext(cls.server)

    def text(self, prompt, **fields):
        """The text of a completion, which a chat with this prompt must have, too."""
        status, _, body = self.server.request("POST", "/v1/completions", {"prompt": prompt} | fields,
                                              {"Authorization": f"Bearer {KEY}"})
        self.assertEqual(status, 200, body)
        return json.loads(body)["choices"][0]["text"]

    def kill_a_rank(self):
        restarts = len(self.server.logged("the ranks are up again; "))
        os.kill(self.server.ranks()[-1], signal.SIGKILL)
        wait_until(lambda: len(self.server.logged("the ranks are up again; ")) > restarts, "ranks up again")


class Messages(OneServer):

    TOOLS = [{"name": "weather", "description": "of a city", "input_schema": CITY},
             {"name": "now", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}]

    def setUp(self):
        self.client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{self.server.port}", api_key=KEY, max_retries=0)
        self.enterContext(self.client)

    def asked(self, **asked):
        return dict(model="tiny", messages=HI, max_tokens=200) | asked

    def both(self, **asked):
        """The answer as a whole, which the streamed one must equal but for the ids of calls."""
        whole = self.client.messages.create(**(asked := self.asked(**asked)))
        with self.client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        self.assertEqual(whole.usage.output_tokens, streamed.usage.output_tokens)
        dumps = [message.model_dump(exclude={"id", "usage"}) for message in (whole, streamed)]
        for block in dumps[0]["content"] + dumps[1]["content"]:
            block.pop("id", None)
        self.assertEqual(*dumps)
        return whole

    def test_a_text(self):
        answer = self.both(max_tokens=20, system="Be brief.")
        self.assertEqual(answer.content[0].text, self.text("system: Be brief.\nuser: hi there\nassistant:", max_tokens=20))
        self.assertEqual((answer.stop_reason, answer.usage.output_tokens), ("max_tokens", 20))
        self.assertTrue(answer.id.startswith("msg_"))
        usage = answer.usage
        counted = self.client.messages.count_tokens(model="tiny", messages=HI, system="Be brief.")
        self.assertEqual(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens)

    def test_an_answer_goes_on_from_its_beginning(self):
        begun = HI + [{"role": "assistant", "content": "It was"}]
        self.assertEqual(self.both(messages=begun, max_tokens=20).content[0].text,
                         self.text("user: hi there\nassistant: It was", max_tokens=20))

    def test_stop_sequences(self):
        whole = self.both(max_tokens=100).content[0].text
        stop = whole[20:24]
        answer = self.both(max_tokens=100, stop_sequences=["never ever", stop])
        self.assertEqual(answer.content[0].text, whole[:whole.index(stop)])
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("stop_sequence", stop))

    def test_output_that_satisfies_a_schema(self):
        answer = self.both(output_config={"format": {"type": "json_schema", "schema": CITY}}, extra_body=ENDS)
        jsonschema.validate(json.loads(answer.content[0].text), CITY)
        self.assertEqual(answer.stop_reason, "end_turn")

    def test_calls_of_tools(self):
        schemas = {tool["name"]: tool["input_schema"] for tool in self.TOOLS}
        for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "weather"}):
            answer = self.both(tools=self.TOOLS, tool_choice=choice, extra_body=ENDS | {"temperature": 1, "seed": 3})
            self.assertEqual(answer.stop_reason, "tool_use")
            call, = answer.content
            self.assertIn(call.name, [choice.get("name", call.name)])
            jsonschema.validate(call.input, schemas[call.name])
        cut = self.both(tools=self.TOOLS, tool_choice={"type": "tool", "name": "weather"}, max_tokens=1, extra_body=ENDS)
        self.assertEqual((cut.content[0].input, cut.stop_reason), ({}, "max_tokens"))

    def test_calls_that_the_model_decides_on_and_their_results(self):
        call = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
        answer = self.both(tools=self.TOOLS, extra_body=only("I look.\n" + call + call))
        self.assertEqual([block.type for block in answer.content], ["text", "tool_use", "tool_use"])
        self.assertEqual(answer.content[0].text, "I look.")
        self.assertEqual([block.input for block in answer.content[1:]], [{"city": "Oslo"}] * 2)
        self.assertEqual(answer.stop_reason, "tool_use")
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}]}
                   for block in answer.content[1:]]
        messages = HI + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        calls = [{"id": block.id, "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
                 for block in answer.content[1:]]
        prompt = f"user: hi there\nassistant: I look.{json.dumps(calls)}\ntool: rain\ntool: rain\nassistant:"
        self.assertEqual(self.both(messages=messages, max_tokens=20).content[0].text, self.text(prompt, max_tokens=20))

    def test_errors(self):
        with self.assertRaises(anthropic.BadRequestError) as refused:
            self.client.messages.create(model="tiny", messages=HI, max_tokens=1, extra_body={"temperature": -1})
        self.assertEqual(refused.exception.body["error"]["type"], "invalid_request_error")
        self.assertIn("temperature: ", refused.exception.body["error"]["message"])
        with self.assertRaises(anthropic.NotFoundError):
            self.client.messages.create(model="other", messages=HI, max_tokens=1)
        with self.assertRaises(anthropic.AuthenticationError):
            self.client.with_options(api_key="wrong").messages.create(model="tiny", messages=HI, max_tokens=1)
        path, body = "/v1/messages", {"messages": HI, "max_tokens": 1}
        for headers, status in (({"X-Api-Key": KEY}, 200), ({"X-Api-Key": "wrong"}, 401), ({}, 401)):
            self.assertEqual(self.server.request("POST", path, body, headers)[0], status)
        for method, path, body, status in (("GET", path, None, 405), ("GET", path + "/none", None, 404),
                                           ("POST", path, b" " * (5 << 20), 413), ("POST", path, b"{", 400)):
            got, _, answer = self.server.request(method, path, body, {"X-Api-Key": KEY})
            self.assertEqual((got, json.loads(answer)["type"]), (status, "error"))

    def test_a_killed_rank_is_a_pause(self):
        call = '<tool_call>{"name": "weather", "arguments": {"city": "' + "Oslo " * 30 + '"}}</tool_call>'
        for asked in (dict(max_tokens=200), dict(tools=self.TOOLS, tool_choice={"type": "any"}, max_tokens=60, extra_body=ENDS),
                      dict(tools=self.TOOLS, max_tokens=400, extra_body=only(call))):
            with self.subTest(asked=asked):
                whole = self.client.messages.create(**(asked := self.asked(**asked)))
                with self.client.messages.stream(**asked) as stream:
                    events = iter(stream)
                    next(events)
                    self.kill_a_rank()
                    for _ in events:
                        pass
                    streamed = stream.get_final_message()
                self.assertEqual([(block.type, getattr(block, "text", None)) for block in whole.content],
                                 [(block.type, getattr(block, "text", None)) for block in streamed.content])
                self.assertEqual((whole.stop_reason, whole.usage.output_tokens),
                                 (streamed.stop_reason, streamed.usage.output_tokens))
                if whole.stop_reason == "tool_use":
                    self.assertEqual([block.input for block in whole.content], [block.input for block in streamed.content])


class Responses(OneServer):

    TOOLS = [{"type": "function", "name": "weather", "description": "of a city", "parameters": CITY, "strict": True},
             {"type": "function", "name": "now", "strict": False,
              "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}]

    def setUp(self):
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key=KEY, max_retries=0)
        self.enterContext(self.client)

    def both(self, **asked):
        """The response as a whole, which the streamed one must equal but for ids."""
        asked = dict(model="tiny", input="hi there", max_output_tokens=200) | asked
        whole = self.client.responses.create(**asked)
        *_, last = self.client.responses.create(stream=True, **asked)
        self.assertIn(last.type, ("response.completed", "response.incomplete"))
        dumps = [response.model_dump(exclude={"id", "created_at", "usage"}) for response in (whole, last.response)]
        for item in dumps[0]["output"] + dumps[1]["output"]:
            item.pop("id")
            item.pop("call_id", None)
        self.assertEqual(*dumps)
        self.assertEqual(whole.usage.output_tokens, last.response.usage.output_tokens)
        return whole

    def test_a_text(self):
        response = self.both(max_output_tokens=20, instructions="Be brief.", metadata={"a": "b"})
        self.assertEqual(response.output_text, self.text("system: Be brief.\nuser: hi there\nassistant:", max_tokens=20))
        self.assertEqual((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual(response.usage.output_tokens, 20)
        self.assertEqual((response.metadata, response.instructions, response.max_output_tokens), ({"a": "b"}, "Be brief.", 20))
        self.assertTrue(response.id.startswith("resp_"))

    def test_the_clients_stream(self):
        class City(pydantic.BaseModel):
            city: str = pydantic.Field(max_length=8)

        with self.client.responses.stream(model="tiny", input="hi", text_format=City, extra_body=ENDS) as stream:
            deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            response = stream.get_final_response()
        self.assertEqual(response.output_text, deltas)
        self.assertEqual(response.output_parsed, City.model_validate_json(deltas))

    def test_logprobs_of_the_text(self):
        response = self.both(max_output_tokens=5, include=["message.output_text.logprobs"], top_logprobs=2)
        reports = response.output[0].content[0].logprobs
        self.assertEqual(b"".join(bytes(report.bytes) for report in reports).decode(errors="replace"), response.output_text)
        self.assertTrue(all(len(report.top_logprobs) == 2 for report in reports))

    def test_calls_of_tools(self):
        schemas = {tool["name"]: tool["parameters"] for tool in self.TOOLS}
        for choice in ("required", {"type": "function", "name": "weather"}):
            response = self.both(tools=self.TOOLS, tool_choice=choice, parallel_tool_calls=False, temperature=1,
                                 extra_body=ENDS | {"seed": 3})
            call, = response.output
            self.assertEqual((response.status, call.type, call.status), ("completed", "function_call", "completed"))
            self.assertTrue(choice == "required" or call.name == "weather")
            jsonschema.validate(json.loads(call.arguments), schemas[call.name])
        cut = self.both(tools=self.TOOLS, tool_choice=choice, max_output_tokens=1, extra_body=ENDS)
        self.assertEqual((cut.status, cut.output[0].status), ("incomplete", "incomplete"))

    def test_calls_that_the_model_decides_on_and_their_results(self):
        call = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
        response = self.both(tools=self.TOOLS, extra_body=only("I look.\n" + call + call))
        self.assertEqual([item.type for item in response.output], ["message", "function_call", "function_call"])
        self.assertEqual(response.output_text, "I look.")
        self.assertEqual([item.arguments for item in response.output[1:]], ['{"city": "Oslo"}'] * 2)
        results = [{"type": "function_call_output", "call_id": item.call_id, "output": "rain"} for item in response.output[1:]]
        calls = [{"id": item.call_id, "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
                 for item in response.output[1:]]
        prompt = f"user: hi there\nassistant: I look.{json.dumps(calls)}\ntool: rain\ntool: rain\nassistant:"
        # The client sends what it got, without the fields that were not set.
        items = [item.model_dump(exclude_unset=True) for item in response.output]
        self.assertEqual(self.both(input=[*HI, *items, *results], max_output_tokens=20).output_text,
                         self.text(prompt, max_tokens=20))

    def test_errors(self):
        for asked in (dict(temperature=-1), dict(previous_response_id="resp_1"), dict(store=True), dict(background=True)):
            with self.assertRaises(openai.BadRequestError) as refused:
                self.client.responses.create(model="tiny", input="hi", **asked)
            self.assertEqual(refused.exception.body["param"], *asked)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.create(model="other", input="hi")

    def test_a_killed_rank_is_a_pause(self):
        call = '<tool_call>{"name": "weather", "arguments": {"city": "' + "Oslo " * 30 + '"}}</tool_call>'
        for asked in (dict(max_output_tokens=200), dict(tools=self.TOOLS, max_output_tokens=400, extra_body=only(call))):
            with self.subTest(asked=asked):
                asked = dict(model="tiny", input="hi there") | asked
                whole = self.client.responses.create(**asked)
                events = self.client.responses.create(stream=True, **asked)
                for event in events:
                    if event.type == "response.in_progress":
                        self.kill_a_rank()
                self.assertEqual(event.response.output_text, whole.output_text)
                self.assertEqual([getattr(item, "arguments", None) for item in event.response.output],
                                 [getattr(item, "arguments", None) for item in whole.output])
                self.assertEqual((event.response.status, event.response.usage.output_tokens),
                                 (whole.status, whole.usage.output_tokens))


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
