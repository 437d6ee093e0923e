"""Writes a GGUF file's weights as a model folder in bf16, as transformers decodes them: decode_gguf.py MODEL.gguf FOLDER"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, torch may wait for ever beside other processes

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

model, folder = Path(sys.argv[1]), sys.argv[2]
AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32).to(torch.bfloat16).save_pretrained(folder)
AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name).save_pretrained(folder)
