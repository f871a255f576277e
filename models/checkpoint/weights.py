"""Weights from disk by their published names: safetensors or PyTorch's pickles, whole or in shards."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.json_file import read_json
from models.checkpoint.reading import reading, reason_of

# Names of a model's weights in the folders of diffusers and of transformers. The first one that is there is read.
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")


def read_folder(folder: Path, names: Sequence[str], *, safetensors_only: bool = False) -> dict[str, Tensor]:
    """The weights of a model folder, from the first of `names` that it holds, whole or in shards.

    Raises ValueError if there are none, if a shard is missing, and as `read_weights` does.
    """
    allowed = [name for name in names if name.endswith(".safetensors") or not safetensors_only]
    for name in allowed:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(folder, index)
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise ValueError(f"{folder} holds no weights: none of {', '.join(allowed)} is in it, whole or in shards")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled flat dict.

    Raises ValueError for any other file, and for a pickle with code in it, which is not run.
    """
    return only_tensors(read_content(path), path)


def read_content(path: Path, stand_ins: Sequence[Any] = ()) -> Mapping[str, Any]:
    """The dict in a .safetensors file or a pickle. `stand_ins` take the place of classes that the pickle names.

    Raises ValueError for any other file, and for a pickle with code in it, which is not run.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: copy it again")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, stand_ins)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}: a dict of tensors is expected")
    return content


def only_tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """`content`, read from `path`, as a dict of tensors. Raises ValueError if it is none, or empty."""
    if others := sorted(str(key) for key, value in content.items() if not isinstance(value, Tensor)):
        raise ValueError(f"{path} holds more than tensors: {', '.join(others[:10])}; known are dicts with ema or model")
    if not content:
        raise ValueError(f"{path} holds no weights: a training output has them under ema or model")
    return dict(content)


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not all(_is_plain_name(name) for name in weight_map.values()):
        raise ValueError(f"{index} has no weight_map of file names beside it")
    shards = sorted(set(weight_map.values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ValueError(f"{folder} lacks {', '.join(missing)}, which its {index.name} names")
    return {key: tensor for name in shards for key, tensor in read_weights(folder / name).items()}


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return load_file(path)


def _read_pickle(path: Path, stand_ins: Sequence[Any]) -> Any:
    try:
        with torch.serialization.safe_globals(list(stand_ins)):
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
