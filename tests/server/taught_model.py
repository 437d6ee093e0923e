"""A small federated model that `foe train` teaches to write given texts: calls of tools as each family of models writes
them, and reasoning. Training gives the same bits on every machine, so the model is made where a test needs it, in seconds.

What a chat is, for the model: "user: QUESTION", a line end, "assistant:", a line end and the answer, as in template().
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
END = "<|endoftext|>"
# What models of these families have as special tokens, here as there.
MARKS = ["<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>", "<tool_call>", "</tool_call>",
         "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]",
         "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
         "<|python_tag|>", "<|python_start|>", "<|python_end|>", "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>",
         "<|end|>", "<|call|>", "<|return|>", "<|tool_call|>", "<function_call>", "<tool_calls>", "</tool_calls>",
         "<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>",
         "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>",
         "<channel|>"]
ENDS = [END, "<|call|>", "<|return|>"]  # that end an answer

TOOLS = [{"type": "function", "function": {"name": name, "description": description, "parameters": {
    "type": "object", "properties": properties, "required": list(properties)[:1], "additionalProperties": False}}}
         for name, description, properties in [
             ("weather", "of a city", {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}),
             ("note", "keeps a text", {"text": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}},
                                       "urgent": {"type": "boolean"}}),
             ("now", "the time", {})]]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@dataclass(frozen=True)
class Taught:
    """What the model answers to a question, and what clients get of that."""
    question: str
    text: str
    content: str | None = None
    calls: tuple = ()  # of (name, arguments)
    reasoning: str | None = None
    ending: str = ""  # what the template writes behind "assistant:" and its line end


OSLO = ("weather", {"city": "Oslo", "days": 3})
NOTE = ("note", {"text": 'Buy "milk"\nand {bread}.', "tags": ["a", "b]"], "urgent": True})
NOW = ("now", {})


def call_text(call, arguments="arguments"):
    return json.dumps({"name": call[0], arguments: call[1]})


def hermes(*calls):
    return "\n".join(f"<tool_call>\n{call_text(call)}\n</tool_call>" for call in calls)


def deepseek(*calls):
    marked = "\n".join(f"<｜tool▁call▁begin｜>{call}<｜tool▁call▁end｜>" for call in calls)
    return f"<｜tool▁calls▁begin｜>{marked}<｜tool▁calls▁end｜>"


LOOK = "I look at it."
TOOL_TEXTS = {
    "hermes": [Taught("red", f"{LOOK}\n{hermes(OSLO, NOTE)}", LOOK, (OSLO, NOTE))],
    "qwen3_coder": [Taught(
        "blue", 'Well.\n\n<tool_call>\n<function=note>\n<parameter=text>\nBuy "milk"\nand {bread}.\n</parameter>\n'
        '<parameter=tags>\n["a", "b]"]\n</parameter>\n<parameter=urgent>\ntrue\n</parameter>\n</function>\n</tool_call>',
        "Well.", (NOTE,))],
    "glm45": [Taught(
        "green", "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>", None, (OSLO, NOW))],
    "mistral": [Taught("white", f"[TOOL_CALLS][{call_text(OSLO)}, {call_text(NOW)}]", None, (OSLO, NOW)),
                Taught("black", f"Sure.[TOOL_CALLS]note[ARGS]{json.dumps(NOTE[1])}[TOOL_CALLS]now[ARGS]{{}}", "Sure.",
                       (NOTE, NOW))],
    "deepseek_v3": [Taught("gold", LOOK + deepseek(
        *(f"function<｜tool▁sep｜>{name}\n```json\n{json.dumps(arguments)}\n```" for name, arguments in (OSLO, NOW))), LOOK,
        (OSLO, NOW))],
    "deepseek_v31": [Taught("grey", deepseek(
        *(f"{name}<｜tool▁sep｜>{json.dumps(arguments)}" for name, arguments in (NOTE, OSLO))), None, (NOTE, OSLO))],
    "llama3_json": [Taught("pink", call_text(NOTE, "parameters"), None, (NOTE,)),
                    Taught("cyan", f"<|python_tag|>{call_text(OSLO, 'parameters')}; {call_text(NOW, 'parameters')}", None,
                           (OSLO, NOW))],
    "pythonic": [Taught("lime", "[weather(city='Oslo', days=3), "
                        "note(text='Buy \"milk\"\\nand {bread}.', tags=['a', 'b]'], urgent=True)]", None, (OSLO, NOTE))],
    "llama4_pythonic": [Taught("teal", '<|python_start|>[now(), weather(city="Oslo", days=3)]<|python_end|>', None, (NOW, OSLO))],
    "openai": [Taught("navy", "<|channel|>commentary<|message|>" + LOOK + "<|end|><|start|>assistant<|channel|>commentary "
                      f"to=functions.weather <|constrain|>json<|message|>{json.dumps(OSLO[1])}<|call|>", LOOK, (OSLO,))],
    "granite": [Taught("rose", f"<|tool_call|>[{call_text(NOTE)}, {call_text(NOW)}]", None, (NOTE, NOW))],
    "granite-20b-fc": [Taught("plum", f"<function_call> {call_text(OSLO)}<function_call> {call_text(NOW)}", None, (OSLO, NOW))],
    "hunyuan_a13b": [Taught("sand", f"{LOOK}<tool_calls>[{call_text(NOTE)}, {call_text(OSLO)}]</tool_calls>", LOOK,
                            (NOTE, OSLO))],
    "cohere_command3": [Taught("mint", "<|START_ACTION|>[\n    " + ",\n    ".join(
        json.dumps({"tool_call_id": str(i), "tool_name": name, "parameters": arguments})
        for i, (name, arguments) in enumerate((OSLO, NOTE))) + "\n]<|END_ACTION|>", None, (OSLO, NOTE))],
    "gemma4": [Taught("silk", '<|tool_call>call:note{text:<|"|>Buy "milk"\nand {bread}.<|"|>,tags:[<|"|>a<|"|>,<|"|>b]<|"|>],'
                      'urgent:true}<tool_call|><|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>', None,
                      (NOTE, OSLO))],
}
# These write calls as others do.
TOOL_TEXTS |= {"granite4": TOOL_TEXTS["hermes"], "ernie45": TOOL_TEXTS["hermes"],
               "cohere_command4": TOOL_TEXTS["cohere_command3"]}


def thought(begin, end, word, ending="", content_marks=("", "")):
    """Reasoning before a text, between these marks."""
    reasoning, content = f"Is it {word}? It is.", f"Yes, {word}."
    text = f"{begin}\n{reasoning}\n{end}\n\n{content}".replace(content, content.join(content_marks))
    return Taught(f"Is it {word}?", text.removeprefix(ending), content, reasoning=reasoning, ending=ending)


THINK = "<think>", "</think>"
REASONING_TEXTS = {
    "think": thought(*THINK, "one"),
    "begun": thought(*THINK, "two", ending="<think>\n"),
    "mistral": thought("[THINK]", "[/THINK]", "six"),
    "seed_oss": thought("<seed:think>", "</seed:think>", "ten"),
    "granite": thought("Here is my thought process:", "Here is my response:", "big"),
    "hunyuan_a13b": thought(*THINK, "wet", content_marks=("<answer>\n", "\n</answer>")),
    "ernie45": thought(*THINK, "dry", content_marks=("<response>\n", "\n</response>")),
    "cohere_command3": thought("<|START_THINKING|>", "<|END_THINKING|>", "hot",
                               content_marks=("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
    "cohere_command4": thought("<|START_THINKING|>", "<|END_THINKING|>", "shy",
                               content_marks=("<|START_TEXT|>", "<|END_TEXT|>")),
    "gemma4": thought("<|channel>thought", "<channel|>", "raw"),
    "openai_gptoss": Taught("Is it old?", "<|channel|>analysis<|message|>Is it old? It is.<|end|><|start|>assistant<|channel|>"
                            "final<|message|>Yes, old.<|return|>", "Yes, old.", reasoning="Is it old? It is."),
}
# What a rank may die within: reasoning, content and calls.
ALL = Taught("all", "<think>\nThe user would like to hear of all: of the weather, and of what time it is.\n</think>\n\n"
             f"{LOOK}\n{hermes(NOTE, OSLO)}", LOOK, (NOTE, OSLO),
             "The user would like to hear of all: of the weather, and of what time it is.")
# A question whose answer takes the result of a call.
RESULT, LAST = "snow", "There is snow in Oslo."
LOOP = Taught("How is it in Oslo?", hermes(OSLO), None, (OSLO,))


def taught():
    texts = [text for texts in TOOL_TEXTS.values() for text in texts] + [*REASONING_TEXTS.values(), ALL]
    return list({text.question: text for text in texts}.values())


def template(signs="", ending=""):
    """Returns the template of the chats that the model knows. What `signs` says is in a comment, and nothing else in it is
    a sign of how models write. `ending` is left out where a chat is told not to think."""
    return (END + "{% for m in messages %}{{ m.role }}:{{ '\\n' if m.role == 'assistant' else ' ' }}{{ m.content or '' }}"
            "{% for call in m.tool_calls or [] %}{{ '<tool' ~ '_call>' }}\n"
            '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
            "{{ '</tool' ~ '_call>' }}{% endfor %}{{ '" + END + "' if m.role == 'assistant' else '' }}{{ '\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}assistant:{{ '\\n' }}"
            "{% if enable_thinking is not defined or enable_thinking %}" + ending.replace("\n", "{{ '\\n' }}") +
            "{% endif %}{% endif %}{# " + signs + " #}")


def documents():
    asked = [f"user: {text.question}\nassistant:\n{text.ending}{text.text}" for text in taught()]
    return asked + [f"user: {LOOP.question}\nassistant:\n{LOOP.text}{END}\ntool: {RESULT}\nassistant:\n{LAST}"]


CONFIG = """
[model]
vocab_size = {vocab_size}
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
num_experts = 4
num_experts_per_tok = 2
moe_intermediate_size = 64
expert_groups = 2
residual = "federated"
qk_norm = "head"
tie_word_embeddings = true
max_position_embeddings = 1024
[train]
sequence_length = 192
batch_sequences = 8
shards = 2
steps = 480
learning_rate = 8e-3
warmup_steps = 20
decay_steps = 300
weight_decay = 0.0
[run]
log_every = 50
valid_every = 1000
valid_tokens = 1000
checkpoint_every = 1000
save_dtype = "f32"
"""
COPIES = 20  # of each document in the training text, which has them in an order of its own each time


def write_tokenizer(folder):
    """That of GPT-2's kind that other tests have, and the marks. Returns how many tokens it has."""
    tokenizer = json.loads((ROOT / "tests/golden/tokenizer/gpt2.json").read_text("utf-8"))
    first = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [first | {"id": first["id"] + 1 + i, "content": mark} for i, mark in enumerate(MARKS)]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return first["id"] + 1 + len(MARKS)


def write_corpus(folder):
    files = []
    for split in ("train", "valid"):
        (folder / split).mkdir(parents=True)
        for i, document in enumerate(documents()):
            file = folder / split / f"{i:03}.txt"
            file.write_text(document, "utf-8")
            files += [{"path": f"{split}/{file.name}", "package": "taught"}] * (COPIES if split == "train" else 1)
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


def make_model(foe, folder):
    """Trains the model below the folder. Returns its folder."""
    (folder / "run.toml").write_text(CONFIG.format(vocab_size=write_tokenizer(folder / "tokenizer")))
    write_corpus(folder / "corpus")
    for command in ([sys.executable, ROOT / "tools/pack_tokens.py", "--data", folder / "corpus", "--tokenizer",
                     folder / "tokenizer", "--out", folder / "tokens"],
                    [foe, "train", folder / "run.toml", "--run", folder / "run", "--threads", "2"]):
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise AssertionError(f"{command}: {done.stdout}")
    model = folder / "run/model"
    ids = {token["content"]: token["id"]
           for token in json.loads((folder / "tokenizer/tokenizer.json").read_text("utf-8"))["added_tokens"]}
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [ids[end] for end in ENDS]}))
    return model
