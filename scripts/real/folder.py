"""Model folders as files: safetensors of numpy arrays, and JSON, written so that a half-written file never has its name."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "I64": np.dtype(np.int64)}
# What a header may have; a file of something else is refused before it is read.
LARGEST_HEADER = 100 << 20


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, as views of the mapped file."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= LARGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", 8 + length)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            continue
        first, end = entry["data_offsets"]
        tensors[name] = data[first:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(length)).get("__metadata__", {})


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes tensors in the order of their names, one at a time."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict = {"__metadata__": metadata}
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).view(np.uint8).tobytes())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def widened(tensor: np.ndarray) -> np.ndarray:
    """As f32; every bf16 and f16 is one."""
    return np.ascontiguousarray(tensor, dtype=np.float32)


def narrowed(tensor: np.ndarray) -> np.ndarray:
    """As bf16, rounded to the nearest."""
    return np.ascontiguousarray(tensor).astype(ml_dtypes.bfloat16)
