"""safetensors files with NumPy alone: whole files of f32, f64, bf16 and integer tensors, read and written."""

import json
import struct
from pathlib import Path

import numpy as np

DTYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8")}


def bf16_bits(array):
    """The bf16 values nearest to finite float32 ones, ties to even, as uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_values(bits):
    """float32 holds every bf16 value exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write(path, tensors, bf16=False, metadata=None):
    """Writes name -> array; bf16 rounds float32 arrays to that type. Order in the file is that of the dictionary."""
    header, blobs, end = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        if bf16 and array.dtype == np.float32:
            dtype, blob = "BF16", bf16_bits(array).astype("<u2").tobytes()
        else:
            dtype = next(key for key, value in DTYPES.items() if value == array.dtype)
            blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read(path):
    """Returns name -> array. bf16 tensors come back as float32, exactly."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        blob = data[8 + size + begin : 8 + size + end]
        if entry["dtype"] == "BF16":
            array = bf16_values(np.frombuffer(blob, "<u2"))
        else:
            array = np.frombuffer(blob, DTYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors
