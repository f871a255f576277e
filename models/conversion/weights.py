"""Published training outputs: the weights in a `.pt`, and the arguments of the script that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.checkpoint.weights import only_tensors, read_content
from models.conversion.arguments import SETTINGS_CLASSES, read_arguments

WEIGHT_ENTRIES = ("ema", "model")

_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and DistributedDataParallel


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
    content = read_content(path, SETTINGS_CLASSES)
    present = [name for name in WEIGHT_ENTRIES if isinstance(content.get(name), Mapping)]
    entry = next((name for name in entries if name in present), "")
    if present and not entry:
        raise ValueError(f"{path} holds no {' or '.join(entries)} weights; it holds {', '.join(present)}")
    tensors = only_tensors(content[entry] if entry else content, path)
    state = {_unwrapped(key): tensor for key, tensor in tensors.items()}
    return TrainingOutput(state, entry, read_arguments(content.get("args")) if entry else {})


def _unwrapped(key: str) -> str:
    while wrapper := next((w for w in _WRAPPERS if key.startswith(w)), None):
        key = key.removeprefix(wrapper)
    return key
