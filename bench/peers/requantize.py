"""Writes a GGUF file's weights in another type, by llama.cpp: requantize.py MODEL.gguf OUT.gguf TYPE [THREADS], as in Q4_K_M

Needs the Python of llama.cpp's environment (peers.py).
"""

import ctypes
import sys
from pathlib import Path

import llama_cpp.llama_cpp as llama

TYPES = {"F32": "LLAMA_FTYPE_ALL_F32", "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "Q6_K": "LLAMA_FTYPE_MOSTLY_Q6_K",
         "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M", "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}  # fmt: skip


def write_type(model: Path, out: Path, name: str, threads: int) -> None:
    if out.exists():
        return
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = getattr(llama, TYPES[name]), True, threads
    status = llama.llama_model_quantize(str(model).encode(), str(out).encode(), ctypes.byref(params))
    if status != 0:
        sys.exit(f"requantize: {model}: expected llama.cpp to write it as {name}, got status {status}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[3] not in TYPES:
        sys.exit(f"{__doc__}expected a type of {', '.join(TYPES)}, got {sys.argv[1:]}")
    write_type(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 2)
