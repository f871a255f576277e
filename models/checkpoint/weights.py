"""Reading weights from the files that users have: safetensors, whole or in shards, and PyTorch's pickles."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and DistributedDataParallel
_SHARDED = "diffusion_pytorch_model.safetensors.index.json"
_WHOLE = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


class _Inert(dict[Any, Any]):
    """Stands for an object of training settings: takes what the pickle gives it, and does nothing with it."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass


# Training outputs carry their settings under `args`. These classes are never imported, so none of their code runs.
_SETTINGS_CLASSES = [
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.str",
        "collections.defaultdict",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "typing.Any",
    )
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights of a published training output: `ema`, else `model`, else the file itself; no wrappers' prefixes.

    Raises ValueError for a file that is none, and for a pickle with code in it, which is not run.
    """
    content: Any = _read(path)
    for name in ("ema", "model"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    return {_unwrapped(key): tensor for key, tensor in _only_tensors(content, path).items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of PyTorch's pickle of a flat dict. Raises as `read_state_dict` does."""
    return _only_tensors(_read(path), path)


def read_diffusers_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a diffusers model folder: safetensors, whole or in shards, or .bin. Raises as `read_weights`."""
    if (folder / _SHARDED).is_file():
        shards = sorted(set(json.loads((folder / _SHARDED).read_text())["weight_map"].values()))
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
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}: a dict of tensors is expected")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_SETTINGS_CLASSES)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks for {name[1]}" if name else "it is not a plain pickle"
        raise ValueError(
            f"{path} is refused: {found}. Only tensors are read from it, since other pickles can run code as they "
            "are opened; save its state dict alone, as safetensors if possible"
        ) from error
    except Exception as error:  # of bytes that are no pickle, torch's reader makes errors of any kind
        raise ValueError(f"{path} is not a file that PyTorch can read: {error}") from error


def _only_tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    if others := sorted(str(key) for key, value in content.items() if not isinstance(value, Tensor)):
        raise ValueError(f"{path} holds more than tensors: {', '.join(others[:10])}; known are dicts with ema or model")
    return dict(content)


def _unwrapped(key: str) -> str:
    while wrapper := next((w for w in _WRAPPERS if key.startswith(w)), None):
        key = key.removeprefix(wrapper)
    return key
