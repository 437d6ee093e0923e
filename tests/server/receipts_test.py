#!/usr/bin/env python3
"""Receipts of a shipped model under load, checked by `foe verify` with other numbers of ranks and threads and every
instruction set of the machine; and what of a receipt or a model is altered, which must be noticed.

    tests/server/receipts_test.py build/foe
    tests/server/receipts_test.py build/foe -k altered    # other arguments are unittest's

The same with 10,000 receipts is tools/check_receipts.py. Standard library only.
"""

import base64
import copy
import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tools"))
import check_receipts  # noqa: E402
from check_receipts import Server, take_receipts  # noqa: E402

FOE = None
MODEL = ROOT / "models/foe-8m"
COUNT = 150
PROMPT = "It was a truth"


def copy_of_model(folder, name):
    shutil.copytree(MODEL, folder / name, ignore=shutil.ignore_patterns("*.png", "*.csv"))
    return folder / name


class Receipts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="foe-receipts-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        with Server(FOE, MODEL, ["--ranks", 2, "--allow-routes"]) as server:
            cls.lines = take_receipts(server, range(COUNT), most_tokens=16)
            cls.receipt = server.answer("/v1/completions", {"prompt": PROMPT, "max_tokens": 24, "temperature": 1, "seed": 5,
                                                            "ignore_eos": True, "receipt": True})["receipt"]
            cls.routed = server.answer("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "receipt": True,
                                                           "foe_route": cls.route()})["receipt"]

    @classmethod
    def route(cls):
        file = cls.folder / "route.safetensors"
        subprocess.run([FOE, "generate", MODEL, "--prompt", PROMPT, "--max-tokens", "1", "--route-trace", file], check=True,
                       capture_output=True)
        return base64.b64encode(file.read_bytes()).decode()

    def verify(self, receipt, model=MODEL, way="--threads 1", **options):
        """Of a receipt, of lines of them, or of bytes that should be one."""
        file = self.folder / ("receipts.jsonl" if isinstance(receipt, list) else "receipt.json")
        file.write_bytes(receipt if isinstance(receipt, bytes) else
                         "".join(receipt).encode() if isinstance(receipt, list) else json.dumps(receipt, indent=1).encode())
        return check_receipts.verify(FOE, file, model, way, **options)

    def check(self, status, expected, *args, **options):
        got, output = self.verify(*args, **options)
        self.assertEqual(got, status, output)
        self.assertIn(expected, output)

    def test_equal_on_every_number_of_ranks_and_threads_and_instruction_set(self):
        equal = f"{COUNT} receipts are equal, 0 differ, 0 cannot be checked"
        for name in check_receipts.instruction_sets(FOE, MODEL):
            self.check(0, equal, self.lines, instruction_set=name)
        self.check(0, equal, self.lines, way="-n 4 --threads 2 --chunk 33")
        self.check(0, "equal: 24 tokens in 1 choices", self.receipt, way="-n 3")
        self.check(0, "equal: 8 tokens in 1 choices", self.routed)

    def test_the_golden_receipts_are_equal(self):
        """Whoever changes bits raises kBitsVersion (src/core/bits.h), and writes these again: docs/receipts.md."""
        golden = (ROOT / "tests/golden/receipt/foe-8m.jsonl").read_text().splitlines(keepends=True)
        self.check(0, f"{len(golden)} receipts are equal", golden)

    def test_an_altered_answer_is_noticed(self):
        tokens = self.receipt["choices"][0]["tokens"]
        other = [(token + 1) % 4096 for token in tokens]

        def altered(change):
            copied = copy.deepcopy(self.receipt)
            change(copied["request"], copied["choices"][0])
            return copied
        cases = [(f"choice 0 differs at token {at}: the receipt has {other[at]} ",
                  altered(lambda _, choice, at=at: choice["tokens"].__setitem__(at, other[at]))) for at in (0, 11, 23)]
        cases += [
            (f"the model chooses {tokens[5]} ", altered(lambda _, choice: choice["tokens"].__setitem__(5, other[5]))),
            ("choice 0 differs at token 23: the receipt ends, the answer goes on",
             altered(lambda _, choice: choice["tokens"].pop())),
            ("choice 0 differs in its finish_reason", altered(lambda _, choice: choice.update(finish_reason="stop"))),
            ("differs at token", altered(lambda request, _: request.update(seeds=["6"]))),
            ("differs at token", altered(lambda request, _: request["prompts"][0].__setitem__(0, 77))),
            ("differs at token", altered(lambda request, _: request.update(temperature=0.0))),
            ("differs at token", altered(lambda request, _: request.update(stop_token_ids=[tokens[3]]))),
            # What changes no token of this answer is noticed by the digests.
            ("the tokens are equal, but request has been changed",
             altered(lambda request, _: request.update(bad_words=[[9, 9, 9]]))),
            ("the tokens are equal, but choices has been changed",
             self.receipt | {"digests": self.receipt["digests"] | {"choices": "0" * 64}}),
            ("the tokens are equal, but model has been changed", self.receipt | {"model": "another"}),
        ]
        status, output = self.verify([json.dumps(receipt) + "\n" for _, receipt in cases])
        self.assertEqual(status, 1, output)
        for (expected, _), line in zip(cases, output.splitlines()[:-1], strict=True):
            self.assertIn(expected, line)
        self.check(1, cases[0][0], cases[0][1], way="-n 2")

    def test_another_model_is_noticed(self):
        weights = copy_of_model(self.folder, "weights")
        content = bytearray((weights / "model.safetensors").read_bytes())
        content[-1000] ^= 1  # the lowest bits of a number
        (weights / "model.safetensors").write_bytes(content)
        self.check(2, "cannot be checked: expected weights", self.receipt, weights)
        template = copy_of_model(self.folder, "template")
        config = json.loads((template / "tokenizer_config.json").read_text())
        config["chat_template"] += " "
        (template / "tokenizer_config.json").write_text(json.dumps(config))
        self.check(2, "cannot be checked: expected chat template", self.receipt, template)
        (self.folder / "template.jinja").write_text("other")
        self.check(2, "cannot be checked: expected chat template", self.receipt,
                   way=f"--chat-template {self.folder / 'template.jinja'}")
        tokenizer = copy_of_model(self.folder, "tokenizer")
        text = (tokenizer / "tokenizer.json").read_text()
        (tokenizer / "tokenizer.json").write_text(text + "\n")
        self.check(2, "cannot be checked: expected tokenizer", self.receipt, tokenizer)
        self.check(2, "cannot be checked: expected config", self.receipt, ROOT / "models/moe-8m")

    def test_another_way_to_compute_is_noticed(self):
        def engine(**fields):
            other = copy.deepcopy(self.receipt)
            other["request"]["engine"].update(fields)
            return other
        self.check(2, "--quantize: expected '', as the receipt says, got 'int8'", self.receipt, way="--quantize int8")
        self.check(2, "--kv-dtype: expected 'bf16', as the receipt says, got 'f32'", self.receipt, way="--kv-dtype f32")
        self.check(2, "--wire: expected f32", self.receipt, way="--wire int8")
        self.check(2, "cannot be checked: expected formats attention=bf16", engine(quantize="int8"))
        self.check(1, "differ", engine(kv_dtype="int8"))
        self.check(2, "expected", engine(attention="f64"))
        other = copy.deepcopy(self.receipt) | {"bits": 1000}
        self.check(2, "version", other)

    def test_what_is_no_receipt_gets_an_error(self):
        text = json.dumps(self.receipt).encode()
        self.check(2, "expected JSON", text[:len(text) // 2])
        self.check(2, "expected JSON", b"\xff\x00")
        self.check(2, "expected a receipt", b'{"id": "cmpl-1"}')
        other = copy.deepcopy(self.receipt)
        other["request"]["prompts"][0][0] = 4096
        self.check(2, "token: expected an id in [0, 4096), got 4096", other)
        other["request"]["prompts"][0][0] = 10**30
        self.check(2, "expected an integer", other)
        other["request"]["prompts"][0] = [1] * 600
        self.check(2, "the model's context", other)
        got, output = check_receipts.verify(FOE, self.folder / "absent.json", MODEL)
        self.assertEqual(got, 2, output)
        got, output = check_receipts.verify(FOE, self.folder / "absent.json", self.folder / "no model")
        self.assertEqual(got, 2, output)

    def test_quantised_weights_have_receipts_of_their_own(self):
        with Server(FOE, MODEL, ["--quantize", "int8", "--kv-dtype", "int8"]) as server:
            lines = take_receipts(server, range(9), most_tokens=8)
        self.check(0, "9 receipts are equal", lines, way="-n 2")

    def test_messages_and_responses_have_them_too(self):
        chat = [{"role": "user", "content": PROMPT}]
        asked = {"/v1/messages": {"messages": chat, "max_tokens": 9}, "/v1/responses": {"input": chat, "max_output_tokens": 9}}
        receipts = []
        with Server(FOE, MODEL) as server:
            for path, body in asked.items():
                body |= {"receipt": True, "temperature": 1, "seed": 3}
                whole = server.answer(path, body)["receipt"]
                # The last event but one of messages, and the last of responses, which server.answer() does not return.
                with server.open(path, body | {"stream": True}) as response:
                    events = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
                found = [event.get("response", event)["receipt"] for event in events if "receipt" in event.get("response", event)]
                self.assertEqual(found, [whole])
                receipts.append(json.dumps(whole) + "\n")
        self.assertEqual(json.loads(receipts[0])["choices"], json.loads(receipts[1])["choices"])
        self.check(0, "2 receipts are equal", receipts, way="-n 2")

    def test_a_wire_that_rounds_has_none(self):
        with Server(FOE, MODEL, ["--wire", "bf16"]) as server:
            with self.assertRaisesRegex(Exception, "400"):
                server.answer("/v1/completions", {"prompt": PROMPT, "receipt": True})


if __name__ == "__main__":
    FOE = sys.argv.pop(1)
    unittest.main(verbosity=2)
