#!/usr/bin/env python3
"""Records what lm-evaluation-harness chooses on the task files of tests/golden/eval, over the API of `foe serve`.

    python3 -m venv VENV && VENV/bin/pip install lm-eval==0.4.13 transformers tenacity requests aiohttp
    VENV/bin/python tools/make_eval_golden.py build/foe

Serves models/moe-8m and writes tests/golden/eval/expected.json: of each task the version of the harness and, of each
item, the answer, the log-likelihoods of the choices, and what acc, acc_norm and acc_bytes of them choose; of
tests/golden/eval/text.txt the log-likelihood of the whole text in disjoint windows. The harness's own YAML files are
used, with local files in the place of its data sets. Needs no network.
"""

import argparse
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parent.parent
ITEMS = ROOT / "tests/golden/eval"
YAML = {"arc_easy": "arc/arc_easy.yaml", "boolq": "super_glue/boolq/default.yaml", "copa": "super_glue/copa/default.yaml",
        "hellaswag": "hellaswag/hellaswag.yaml", "piqa": "piqa/piqa.yaml", "sciq": "sciq/sciq.yaml"}


def jsonl(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def hugging_face_rows(task):
    """The items of a task with the keys that Hugging Face's data sets have: those that the harness reads."""
    if task == "sciq":
        return json.loads((ITEMS / "sciq.json").read_text("utf-8"))
    rows = jsonl(ITEMS / f"{task}.jsonl")
    if task == "arc_easy":
        return [{"id": r["id"], "question": r["question"]["stem"], "answerKey": r["answerKey"],
                 "choices": {key: [c[key] for c in r["question"]["choices"]] for key in ("text", "label")}}
                for r in rows]
    if task == "boolq":
        return [{"question": r["question"], "passage": r["passage"], "label": int(r["answer"])} for r in rows]
    if task == "piqa":
        labels = (ITEMS / "piqa-labels.lst").read_text().split()
        return [row | {"label": int(label)} for row, label in zip(rows, labels, strict=True)]
    if task == "hellaswag":
        return [row | {"label": str(row["label"])} for row in rows]
    return rows


def local_task(task, folder):
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import _yaml_loader
    import lm_eval.tasks
    path = Path(lm_eval.tasks.__file__).parent / YAML[task]
    config = _yaml_loader.load_yaml(path, resolve_func=True)
    data = folder / f"{task}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in hugging_face_rows(task)), "utf-8")
    for key in ("tag", "dataset_name", "training_split", "test_split", "fewshot_split"):
        config.pop(key, None)
    return ConfigurableTask(config=config | {
        "dataset_path": "json", "validation_split": "validation",
        "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes")],
        "dataset_kwargs": {"data_files": {"validation": str(data)}, "cache_dir": str(folder / "cache")}})


class Server:
    def __init__(self, foe, model):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([foe, "serve", model, "--port", str(self.port), "--host", "127.0.0.1"])

    def __enter__(self):
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
                return self
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("make_eval_golden: foe serve has ended")
                time.sleep(0.2)
        sys.exit("make_eval_golden: foe serve does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def pick(values):
    return max(range(len(values)), key=lambda i: values[i])


def record(task, sample, choices):
    logs = [response[0][0] if isinstance(response[0], (list, tuple)) else response[0] for response in sample["resps"]]
    by = {"acc": logs, "acc_norm": [x / len(c) for x, c in zip(logs, choices)],
          "acc_bytes": [x / len(c.encode()) for x, c in zip(logs, choices)]}
    item = {"answer": choices.index(sample["target"]) if task == "copa" else int(sample["target"]),
            "loglikelihoods": logs} | {name: pick(values) for name, values in by.items()}
    for name in by:  # what is recorded is what the harness itself counted
        if (item[name] == item["answer"]) != bool(sample[name]):
            sys.exit(f"make_eval_golden: {task}: {name} of {sample['doc']} is {sample[name]}, the choice {item[name]}")
    return item


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foe")
    parser.add_argument("--model", default=str(ROOT / "models/moe-8m"))
    parser.add_argument("--out", type=Path, default=ITEMS / "expected.json")
    arguments = parser.parse_args()
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    with tempfile.TemporaryDirectory() as name, Server(arguments.foe, arguments.model) as server:
        tasks = [local_task(task, Path(name)) for task in YAML]
        context = json.loads((Path(arguments.model) / "config.json").read_text())["max_position_embeddings"]
        model = LocalCompletionsAPI(
            base_url=f"http://127.0.0.1:{server.port}/v1/completions", model=Path(arguments.model).name,
            tokenizer=arguments.model, tokenizer_backend="huggingface", max_length=context, num_concurrent=1)
        results = lm_eval.simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0, log_samples=True)
        text = (ITEMS / "text.txt").read_text("utf-8")
        rolling = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])[0]
    out = {"harness": importlib.metadata.version("lm-eval"), "model": Path(arguments.model).name, "tasks": {},
           "text": {"window": context - 1, "stride": context - 2, "loglikelihood": rolling}}
    for task, loaded in zip(YAML, tasks):
        samples = sorted(results["samples"][task], key=lambda s: s["doc_id"])
        out["tasks"][task] = {
            "version": results["versions"][task],
            "metrics": {key.replace(",none", ""): value for key, value in results["results"][task].items()
                        if key.startswith("acc")},
            "items": [record(task, s, loaded.doc_to_choice(s["doc"])) for s in samples]}
    arguments.out.write_text(json.dumps(out, indent=1) + "\n", "utf-8")
    print(f"{arguments.out}: {sum(len(t['items']) for t in out['tasks'].values())} items of {len(tasks)} tasks")


if __name__ == "__main__":
    main()
