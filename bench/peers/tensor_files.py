"""Reads tensors of a safetensors file, one at a time, as float32."""

import json
from pathlib import Path

import numpy as np


class TensorFile:
    def __init__(self, path: Path):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self.entries = json.loads(file.read(length))
        self.data = np.memmap(path, np.uint8, "r", offset=8 + length)

    def shape(self, name: str) -> list[int]:
        return self.entries[name]["shape"]

    def read(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        begin, end = entry["data_offsets"]
        raw = self.data[begin:end]
        if entry["dtype"] == "F32":
            values = raw.view(np.float32)
        elif entry["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            raise SystemExit(f"{name}: expected F32 or BF16, found {entry['dtype']}")
        return values.reshape(entry["shape"])
