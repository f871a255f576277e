"""Weights from the files that users have: safetensors, single or sharded, and PyTorch's pickles."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.json_file import read_json
from models.checkpoint.reading import reading, reason_of
from models.conversion.arguments import SETTINGS_CLASSES, read_arguments

WEIGHT_ENTRIES = ("ema", "model")

_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and DistributedDataParallel
_SHARDED = "diffusion_pytorch_model.safetensors.index.json"
_WHOLE = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


@dataclass(frozen=True)
class TrainingOutput:
    """The weights of a training output, without prefixes of wrappers.

    Attributes:
        entry: where in the file they lie: "ema" or "model", or "" if the file is a bare state dict.
        arguments: the training script's arguments, if the file holds them.
    """

    state: dict[str, Tensor]
    entry: str
    arguments: dict[str, Any]


def read_training_output(path: Path, entries: Sequence[str]) -> TrainingOutput:
    """Read the first of `entries` ("ema", "model") that `path` holds, or `path` itself if it is a bare state dict.

    Raises ValueError for a file that is not a training output, for one that holds other entries only, and for a pickle
    with code in it, which is not run.
    """
    content = _read(path)
    present = [name for name in WEIGHT_ENTRIES if isinstance(content.get(name), Mapping)]
    entry = next((name for name in entries if name in present), "")
    if present and not entry:
        raise ValueError(f"{path} holds no {' or '.join(entries)} weights; it holds {', '.join(present)}")
    tensors = _only_tensors(content[entry] if entry else content, path)
    state = {_unwrapped(key): tensor for key, tensor in tensors.items()}
    return TrainingOutput(state, entry, read_arguments(content.get("args")) if entry else {})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled flat dict. Raises as `read_training_output` does."""
    return _only_tensors(_read(path), path)


def read_diffusers_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a diffusers model folder: safetensors, whole or in shards, or .bin. Raises as `read_weights`."""
    if (folder / _SHARDED).is_file():
        index = read_json(folder / _SHARDED)
        shards = sorted(set(index.get("weight_map", {}).values()))
        if missing := [name for name in shards if not (folder / name).is_file()]:
            raise ValueError(f"{folder} lacks {', '.join(missing)}, which its {_SHARDED} names")
        return {key: tensor for name in shards for key, tensor in read_weights(folder / name).items()}
    for name in _WHOLE:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise ValueError(f"{folder} holds no weights: none of {', '.join((_SHARDED, *_WHOLE))} is in it")


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: copy it again")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}: a dict of tensors is expected")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return load_file(path)


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(SETTINGS_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks for {name[1]}" if name else "it is not a plain pickle"
        raise ValueError(
            f"{path} is refused: {found}. Only tensors are read from it, since other pickles can run code as they "
            "are opened; save its state dict alone, as safetensors if possible"
        ) from error
    except Exception as error:  # bytes that are not a pickle raise errors of any kind
        raise ValueError(f"cannot read {path}: {reason_of(error)}") from error


def _only_tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    if others := sorted(str(key) for key, value in content.items() if not isinstance(value, Tensor)):
        raise ValueError(f"{path} holds more than tensors: {', '.join(others[:10])}; known are dicts with ema or model")
    if not content:
        raise ValueError(f"{path} holds no weights: a training output has them under ema or model")
    return dict(content)


def _unwrapped(key: str) -> str:
    while wrapper := next((w for w in _WRAPPERS if key.startswith(w)), None):
        key = key.removeprefix(wrapper)
    return key
