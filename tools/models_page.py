#!/usr/bin/env python3
"""Writes docs/models.md: which families of models load, checked against what, and what their published sizes need.

    tests/oracle/families_test.py build/foe --mpirun --report /tmp/families.json
    tools/models_page.py build/foe /tmp/families.json

Every row of the first table is a family that the report has, so one whose test failed is not on the page; the second is
what `foe inspect` says of the configurations in tests/weights/published/. Standard library only.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "tests" / "weights" / "published"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- tables by tools/models_page.py -->", "<!-- end of the tables -->"

# Who publishes models of a type, and the kind of tokenizer in their folders.
KNOWN_AS = {
    "dots1": ("dots.llm1", "tokenizer.json"),
    "ernie4_5": ("ERNIE 4.5, dense", "tokenizer.model"),
    "ernie4_5_moe": ("ERNIE 4.5", "tokenizer.model"),
    "flex_olmo": ("FlexOlmo", "tokenizer.json"),
    "gemma2": ("Gemma 2", "tokenizer.json"),
    "gemma3_text": ("Gemma 3, text", "tokenizer.json"),
    "glm4_moe": ("GLM-4.5, 4.6, 4.7", "tokenizer.json"),
    "gpt_oss": ("gpt-oss", "tokenizer.json"),
    "granite": ("Granite 3, dense", "tokenizer.json"),
    "granitemoe": ("Granite 3, MoE", "tokenizer.json"),
    "granitemoeshared": ("Granite, MoE with shared experts", "tokenizer.json"),
    "hunyuan_v1_dense": ("Hunyuan, dense", "tiktoken or tokenizer.json"),
    "hunyuan_v1_moe": ("Hunyuan-A13B", "tiktoken or tokenizer.json"),
    "llama": ("Llama 2, 3, 3.1, 3.2; SmolLM2", "tokenizer.json"),
    "minimax_m2": ("MiniMax-M2", "tokenizer.json"),
    "ministral": ("Ministral", "tokenizer.json"),
    "mistral": ("Mistral", "tokenizer.json"),
    "mixtral": ("Mixtral", "tokenizer.json"),
    "olmo2": ("OLMo 2", "tokenizer.json"),
    "olmo3": ("OLMo 3", "tokenizer.json"),
    "olmoe": ("OLMoE", "tokenizer.json"),
    "phi3": ("Phi-3, 3.5, 4", "tokenizer.json"),
    "qwen2": ("Qwen 2, 2.5", "tokenizer.json"),
    "qwen2_moe": ("Qwen1.5-MoE, Qwen2-MoE", "tokenizer.json"),
    "qwen3": ("Qwen 3", "tokenizer.json"),
    "qwen3_moe": ("Qwen 3, MoE", "tokenizer.json"),
    "smollm3": ("SmolLM3", "tokenizer.json"),
    "solar_open": ("Solar Open", "tokenizer.json"),
}


def families(report):
    """Rows of the first table, by model_type: several models of a report may be of one."""
    rows = {}
    for result in report.values():
        row = rows.setdefault(result["model_type"], {"plans": set(), "worst": 0.0, "lengths": set(), "models": 0})
        row["plans"] |= set(result["plans"])
        row["models"] += 1
        for key, value in result.items():
            if key.endswith(" tokens"):
                row["lengths"].add(int(key.split()[0]))
                row["worst"] = max(row["worst"], value)
    lines = ["| family | `model_type` | plans | tokenizer | models compared | of so many tokens | furthest off |",
             "|---|---|---|---|---|---|---|"]
    for kind, row in sorted(rows.items()):
        name, tokenizer = KNOWN_AS.get(kind, (kind, "tokenizer.json"))
        lengths = " and ".join(f"{length:,}" for length in sorted(row["lengths"]))
        lines.append(f"| {name} | `{kind}` | {', '.join(sorted(row['plans']))} | {tokenizer} | "
                     f"{row['models']} | {lengths} | {row['worst']:.0e} |")
    return lines


def inspect(foe, folder, *flags):
    done = subprocess.run([foe, "inspect", folder, "--json", *flags], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{folder}: {done.stderr}")
    return json.loads(done.stdout)


def gigabytes(report):
    rank = report["ranks"][0]
    return rank["weight_bytes"] / 1e9, rank["kv_bytes_per_token"]


def sizes(foe):
    lines = ["| published model | parameters | of a token | weights in bf16, GB | int8 | int4 | KV cache, MB for 1,000 tokens |",
             "|---|---|---|---|---|---|---|"]
    for path in sorted(PUBLISHED.glob("*.json"), key=lambda path: path.stem.lower()):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(path.read_text())
            reports = {form: inspect(foe, folder, *flags) for form, flags in
                       {"bf16": [], "int8": ["--quantize", "int8"], "int4": ["--quantize", "int4"]}.items()}
        plain = reports["bf16"]
        weights = " | ".join(f"{gigabytes(reports[form])[0]:,.1f}" for form in ("bf16", "int8", "int4"))
        lines.append(f"| {path.stem} | {plain['parameters'] / 1e9:,.1f} B | {plain['active_parameters'] / 1e9:,.1f} B | "
                     f"{weights} | {gigabytes(plain)[1] / 1e3:,.0f} |")
    return lines


def main():
    foe, report = sys.argv[1:]
    tables = [BEGIN, "", *families(json.loads(Path(report).read_text())), "", *sizes(foe), "", END]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + "\n".join(tables) + after)


if __name__ == "__main__":
    main()
