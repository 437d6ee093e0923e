"""What `foe eval` should find, in float64 and Python: prompts, tokens, choices, windows. Written from the templates of
lm-evaluation-harness and the definition of perplexity, with the tokenizers library and foe_oracle.py."""

import json
import math
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import foe_oracle


def items_of(path):
    text = Path(path).read_text("utf-8")
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x.strip()]


def arc_easy(item):
    choices = item["question"]["choices"]
    return (f"Question: {item['question']['stem']}\nAnswer:", [c["text"] for c in choices],
            [c["label"] for c in choices].index(item["answerKey"]))


def boolq(item):
    return f"{item['passage']}\nQuestion: {item['question']}?\nAnswer:", ["no", "yes"], int(item["answer"])


def copa(item):
    connector = {"cause": "because", "effect": "therefore"}[item["question"]]
    choices = [" " + c[0].lower() + c[1:] for c in (item["choice1"], item["choice2"])]
    return f"{item['premise'].strip()[:-1]} {connector}", choices, item["label"]


def hellaswag(item):
    def clean(text):
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
    context = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
    return clean(context), [clean(e) for e in item["endings"]], int(item["label"])


def piqa(item):
    return f"Question: {item['goal']}\nAnswer:", [item["sol1"], item["sol2"]], item["label"]


def sciq(item):
    choices = [item[key] for key in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return f"{item['support'].lstrip()}\nQuestion: {item['question']}\nAnswer:", choices, 3


TASKS = {f.__name__: f for f in (arc_easy, boolq, copa, hellaswag, piqa, sciq)}


class Model:
    def __init__(self, folder):
        self.config, self.weights = foe_oracle.load(Path(folder))
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def logprobs(self, tokens):
        """Of tokens[1:], each given those before it."""
        logits = foe_oracle.forward(self.config, self.weights, tokens[:-1]).logits_TV
        largest = logits.max(axis=1, keepdims=True)
        logs = logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
        return logs[np.arange(len(tokens) - 1), tokens[1:]]

    def loglikelihood(self, context, continuation, most):
        whole, before = self.encode(context + continuation), self.encode(context)
        assert whole[: len(before)] == before or len(whole) > len(before)
        count = len(whole) - len(before)
        return float(self.logprobs(whole[-most:])[-count:].sum())

    def answer(self, task, item):
        """The right choice, the log-likelihoods, and what acc, acc_norm and acc_bytes choose."""
        context, choices, answer = TASKS[task](item)
        logs = [self.loglikelihood(context, " " + c, self.config["max_position_embeddings"] - 1) for c in choices]
        return {"answer": answer, "loglikelihoods": logs, "acc": int(np.argmax(logs)),
                "acc_norm": int(np.argmax([x / len(c) for x, c in zip(logs, choices)])),
                "acc_bytes": int(np.argmax([x / len(c.encode()) for x, c in zip(logs, choices)]))}

    def nats(self, prefix, tokens, window, stride):
        """The loss of all tokens: each window has at most `window`, of which all after the first score the last ones."""
        tokens = [prefix, *tokens]
        total, done = 0.0, 1
        while done < len(tokens):
            end = min(len(tokens), window if done == 1 else done + stride)
            begin = max(0, end - window)
            total -= float(self.logprobs(tokens[begin:end])[done - begin - 1 :].sum())
            done = end
        return total


def standard_error(right):
    n = len(right)
    mean = sum(right) / n
    return math.sqrt(sum((x - mean) ** 2 for x in right) / (n - 1)) / math.sqrt(n)
