#!/usr/bin/env python3
"""Drives a server with the clients that people use, with their defaults, and says in a line what was driven of each.

    tests/server/clients_test.py build/foe [-k NAME]

The packages are those of tools/requirements-clients.txt, and lm-eval if it is there: it is large. The model is a random
one: what it says is nonsense, but calls of tools and structured output are held to their schemas, so that each client gets
what it can read.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Iterable, Literal

import serve_test
from serve_test import ARGS, Server

try:
    import openai
    from pydantic import BaseModel, Field
except ImportError:
    print("SKIPPED: no clients; 'make test' installs tools/requirements-clients.txt when it can reach PyPI")
    sys.exit(77)

# None of them may ask anybody but the server.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "secret"}

# Writes tools, calls and their results, as templates of models that were trained to call tools do.
TEMPLATE = """{% if tools %}{{ tools | tojson }}
{% endif %}{% for m in messages %}{{ m.role }}:
{%- if m.content is string %} {{ m.content }}{% else %}{% for part in m.content or [] %} {{ part.text }}{% endfor %}
{%- endif %}
{%- for call in m.tool_calls or [] %} {{ call.function.name }} {{ call.function.arguments.items() | list }}{% endfor %}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


def setUpModule():
    serve_test.setUpModule()
    # With an end token, so that answers end by themselves.
    (serve_test.MODEL / "generation_config.json").write_text('{"eos_token_id": [560]}')
    (serve_test.MODEL / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')


tearDownModule = serve_test.tearDownModule


class City(BaseModel):
    """A city that somebody lives in."""
    name: str = Field(min_length=1, max_length=8)
    people: int = Field(ge=0, le=99)
    size: Literal["small", "large"]


def weather(city: Literal["Oslo", "Rome"], days: Literal[1, 2] = 1) -> str:
    """Tells the weather of a city.

    Args:
        city: where
        days: how many
    """
    return f"rain in {city} for {days} days"


@contextlib.contextmanager
def client(package):
    """Gives the list of what has been driven. A client that is not installed is skipped."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        print(f"SKIPPED: {package} is not installed", flush=True)
        raise unittest.SkipTest(f"{package} is not installed") from None
    done, state = [], "FAILED after"
    try:
        yield done
        state = "drove"
    finally:
        print(f"{package} {version} {state}: {', '.join(done)}", flush=True)


class ClientsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        template = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="foe-clients-"))) / "template.jinja"
        template.write_text(TEMPLATE)
        cls.server = cls.enterClassContext(Server(1, "--chat-template", template, "--tool-call-parser", "hermes",
                                                   "--api-key", "secret"))
        cls.url = f"http://127.0.0.1:{cls.server.port}/v1"
        cls.where = dict(base_url=cls.url, api_key="secret")

    def test_instructor(self):
        with client("instructor") as done:
            import instructor
            raw = openai.OpenAI(**self.where)
            asked = dict(model="tiny", messages=[{"role": "user", "content": "Which city?"}], max_retries=0, max_tokens=400)

            def chat(mode):
                return instructor.from_openai(raw, mode=instructor.Mode[mode]).chat.completions
            for mode in ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS"]:
                self.assertIsInstance(chat(mode).create(response_model=City, **asked), City)
                done.append(mode)
            # In these modes the model decides, and a rule stands for what one has learnt to write.
            oslo = City(name="Oslo", people=7, size="small")
            call = f'<tool_call>{{"name": "City", "arguments": {oslo.model_dump_json()}}}</tool_call>'
            for mode, model, rule in [
                    ("JSON", City, {"choice": [oslo.model_dump_json()]}),
                    ("MD_JSON", City, {"choice": [f"Here:\n```json\n{oslo.model_dump_json()}\n```"]}),
                    ("PARALLEL_TOOLS", Iterable[City], {"choice": [call * 2]})]:
                # A rule beside instructor's own would be refused.
                extra = {"structured_outputs": rule, "response_format": None}
                found = chat(mode).create(response_model=model, extra_body=extra, **asked)
                cities = [found] if model is City else list(found)
                self.assertEqual([city.model_dump() for city in cities], [oslo.model_dump()] * len(cities))
                done.append(mode)
            *_, last = chat("TOOLS").create_partial(response_model=City, **asked)
            City.model_validate(last.model_dump())
            done.append("create_partial")

    def test_langchain(self):
        with client("langchain-openai") as done:
            from langchain_core.messages import ToolMessage
            from langchain_core.tools import tool
            from langchain_openai import ChatOpenAI, OpenAI
            model = ChatOpenAI(model="tiny", max_tokens=400, max_retries=0, **self.where)
            told = model.invoke("hello", max_tokens=5, logprobs=True).response_metadata
            self.assertEqual(len(told["logprobs"]["content"]), 5)
            done.append("invoke")
            self.assertTrue("".join(chunk.content for chunk in model.stream("hello", max_tokens=5)))
            done.append("stream")
            answer = model.bind_tools([tool(weather)], tool_choice="required").invoke("What is the weather?")
            results = [ToolMessage(weather(**call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
            self.assertTrue(results)
            answer = model.bind_tools([tool(weather)]).invoke(["The weather?", answer, *results], max_tokens=5)
            self.assertTrue(answer.content)
            done.append("bind_tools")
            first, *rest = model.bind_tools([tool(weather)], tool_choice="weather").stream("What is the weather?")
            self.assertEqual([call["name"] for call in sum(rest, first).tool_calls], ["weather"])
            done.append("bind_tools, streamed")
            for method in ["json_schema", "function_calling"]:
                self.assertIsInstance(model.with_structured_output(City, method=method).invoke("Which city?"), City)
                self.assertIsInstance(model.with_structured_output(City, method=method, strict=True).invoke("Which?"), City)
                done.append(f"with_structured_output, {method}")
            self.assertTrue(OpenAI(model="tiny", max_tokens=5, **self.where).invoke("It was"))
            done.append("completions")
            model = ChatOpenAI(model="tiny", max_tokens=400, max_retries=0, use_responses_api=True, **self.where)
            self.assertTrue(model.invoke("hello", max_tokens=5).text)
            self.assertTrue("".join(chunk.text for chunk in model.stream("hello", max_tokens=5)))
            self.assertIsInstance(model.with_structured_output(City, method="json_schema").invoke("Which city?"), City)
            done.append("responses: invoke, stream, with_structured_output")
            from langchain_openai import OpenAIEmbeddings
            # It sends ids of another model's tokenizer, unless it is told not to.
            embeddings = OpenAIEmbeddings(model="tiny", check_embedding_ctx_length=False, **self.where)
            texts = [f"text {i}" for i in range(1100)]
            vectors = embeddings.embed_documents(texts)
            self.assertEqual(len(vectors), len(texts))
            self.assertEqual(vectors[1050], embeddings.embed_query(texts[1050]))
            done.append("OpenAIEmbeddings: embed_documents, embed_query")

    def test_pydantic_ai(self):
        with client("pydantic-ai-slim") as done:
            from pydantic_ai import Agent, NativeOutput
            from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
            from pydantic_ai.providers.openai import OpenAIProvider
            for of_api in (OpenAIChatModel, OpenAIResponsesModel):
                model = of_api("tiny", provider=OpenAIProvider(**self.where))
                self.assertTrue(Agent(model, tools=[weather]).run_sync("Hello?", model_settings={"max_tokens": 5}).output)
                done.append(f"{of_api.__name__}: text beside tools")
                for name, kind in {"output_type": City, "NativeOutput": NativeOutput(City)}.items():
                    agent = Agent(model, output_type=kind, system_prompt="Be brief.", model_settings={"max_tokens": 400})
                    self.assertIsInstance(agent.run_sync("Which city?").output, City)
                    done.append(name)

                    async def streamed():
                        async with agent.run_stream("Which city?") as run:
                            return await run.get_output()
                    self.assertIsInstance(asyncio.run(streamed()), City)
                    done.append(f"{name}, streamed")

    def test_openai_agents(self):
        with client("openai-agents") as done:
            import agents
            from agents import Agent, ModelSettings, Runner, function_tool
            agents.set_tracing_disabled(True)
            agents.set_default_openai_client(openai.AsyncOpenAI(**self.where), use_for_tracing=False)
            asked = []

            @function_tool
            def forecast(city: Literal["Oslo", "Rome"]) -> str:
                """Tells the weather."""
                asked.append(city)
                return "rain"

            async def streamed(agent):
                run = Runner.run_streamed(agent, "What is the weather?")
                events = [event async for event in run.stream_events()]
                return events and run.final_output
            ends = {"min_tokens": 5, "logit_bias": {"560": 100}}  # agents take no responses that were cut
            for api in ("responses", "chat_completions"):
                agents.set_default_openai_api(api)
                asked.clear()
                agent = Agent(name="a", model="tiny", instructions="Be brief.", output_type=City,
                              model_settings=ModelSettings(max_tokens=400))
                self.assertIsInstance(Runner.run_sync(agent, "Which city?").final_output, City)
                done.append(f"{api}: output_type")
                agent = Agent(name="a", model="tiny", tools=[forecast],
                              model_settings=ModelSettings(tool_choice="forecast", extra_body=ends))
                self.assertTrue(Runner.run_sync(agent, "What is the weather?").final_output)
                self.assertTrue(asyncio.run(streamed(agent)))
                self.assertEqual(len(asked), 2)
                done.append(f"{api}: a tool and the answer behind it, whole and streamed")
                agent = Agent(name="a", model="tiny", tools=[forecast], output_type=City,
                              model_settings=ModelSettings(max_tokens=400, tool_choice="forecast"))
                self.assertIsInstance(Runner.run_sync(agent, "What is the weather?").final_output, City)
                self.assertEqual(len(asked), 3)
                done.append(f"{api}: a tool, and an output_type behind it")

    def test_litellm(self):
        with client("litellm") as done:
            import litellm
            litellm.suppress_debug_info = True
            schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
            tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
            ask = [{"role": "user", "content": "hello"}]
            for provider in ["openai", "hosted_vllm"]:
                where = {"model": f"{provider}/tiny", "api_base": self.url, "api_key": "secret", "messages": ask}
                whole = litellm.completion(max_tokens=5, **where).choices[0].message.content
                pieces = litellm.completion(max_tokens=5, stream=True, **where)
                self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in pieces), whole)
                answer = litellm.completion(max_tokens=400, tools=tools, tool_choice="required", **where).choices[0].message
                self.assertIn(json.loads(answer.tool_calls[0].function.arguments)["city"], ["Oslo", "Rome"])
                answer = litellm.completion(max_tokens=400, response_format=City, **where).choices[0].message
                City.model_validate_json(answer.content)
                done.append(f"{provider}: chat, stream, tools, response_format")
            where = {"model": "anthropic/tiny", "api_base": self.url.removesuffix("/v1"), "api_key": "secret", "messages": ask}
            whole = litellm.completion(max_tokens=5, **where).choices[0].message.content
            pieces = litellm.completion(max_tokens=5, stream=True, **where)
            self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in pieces), whole)
            answer = litellm.completion(max_tokens=400, tools=tools, tool_choice="required", **where).choices[0].message
            self.assertIn(json.loads(answer.tool_calls[0].function.arguments)["city"], ["Oslo", "Rome"])
            done.append("anthropic: chat, stream, tools")
            where = {"model": "openai/tiny", "api_base": self.url, "api_key": "secret"}
            made = litellm.embedding(input=["It was", "a night"], encoding_format="float", **where)
            self.assertEqual([len(one["embedding"]) for one in made.data], [128, 128])
            done.append("embedding")
            where = {"model": "text-completion-openai/tiny", "api_base": self.url, "api_key": "secret"}
            self.assertTrue(litellm.text_completion(prompt="It was", max_tokens=5, **where).choices[0].text)
            done.append("text_completion")

    def test_lm_eval(self):
        with client("lm_eval") as done:
            from lm_eval.api.instance import Instance
            from lm_eval.models.openai_completions import LocalCompletionsAPI

            def requests(kind, *arguments):
                return [Instance(kind, {}, argument, i) for i, argument in enumerate(arguments)]
            model = LocalCompletionsAPI(model="tiny", base_url=self.url + "/completions", tokenizer_backend="remote",
                                        max_length=2048)
            scores = model.loglikelihood(requests("loglikelihood", ("It was", " a dark night"), ("It was", " not")))
            whole, = model.loglikelihood_rolling(requests("loglikelihood_rolling", ("It was a dark night",)))
            self.assertTrue(whole < scores[0][0] < 0)
            self.assertEqual(len(model.generate_until(requests("generate_until", ("It was", {"max_gen_toks": 5})))), 1)
            done.append("tokenizer_backend=remote: loglikelihood, loglikelihood_rolling, generate_until")


if __name__ == "__main__":
    ARGS.foe = str(Path(sys.argv[1]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], warnings="ignore")
