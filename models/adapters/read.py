"""Reading an adapter folder (peft's layout), whose files are not trusted.

`adapter_model.safetensors` holds the weights, and `adapter_config.json` says how they were trained.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import load

from models.adapters.adapter import Adapter, LowRankUpdate
from models.adapters.targets import Target, explain_unknown, find_targets
from models.checkpoint.keys import check_finite, list_problems
from models.checkpoint.reading import reading
from models.config import TransformerConfig
from models.conversion.lora import LowRank, Scaling, parse_lora

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
_MAX_SETTINGS_BYTES = 1 << 20
_REPEATS = re.compile(r"[*+{]")  # a pattern with repetitions can take exponential time
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_adapter(folder: Path, config: TransformerConfig, max_bytes: int) -> Adapter:
    """The adapter in `folder` for the transformer of `config`, in float32 on the CPU.

    Raises ValueError as `read_lora` does, and for an adapter that does not fit the model, by name.
    """
    lora, fingerprint = read_lora(folder, max_bytes)
    return Adapter(config, _updates(folder, lora, find_targets(config)), fingerprint)


def read_lora(folder: Path, max_bytes: int) -> tuple[dict[str, LowRank], str]:
    """The update of each published layer by the adapter in `folder`, and the fingerprint of its files.

    The files are read into memory first: a file that shrinks while it is mapped would end the process.

    Args:
        max_bytes: The most that the weights may take.

    Raises:
        ValueError: For a folder that is not an adapter, by name.
    """
    content = read_inside(folder, WEIGHTS, max_bytes)
    settings_content = read_inside(folder, SETTINGS, _MAX_SETTINGS_BYTES)
    with reading(folder / SETTINGS):
        scaling = Scaling.from_dict(_json_object(settings_content))
    with reading(folder / WEIGHTS):
        tensors = load(content)
        check_finite(str(folder / WEIGHTS), tensors)
        lora = parse_lora(tensors, scaling)
    return lora, hashlib.sha256(content + settings_content).hexdigest()[:16]


def base_model_of(folder: Path) -> str | None:
    """The model that peft's settings name, without the owner or the folder that it was loaded from."""
    try:
        settings = json.loads(read_inside(folder, SETTINGS, _MAX_SETTINGS_BYTES))
        named = settings.get("base_model_name_or_path")
    except (ValueError, OSError, RecursionError, AttributeError):
        return None
    return named.rstrip("/").rpartition("/")[2] or None if isinstance(named, str) else None


def files_changed_at(folder: Path) -> tuple[int, ...]:
    """Sizes and times of the files of an adapter: other ones after a change. Raises ValueError without the files."""
    try:
        statuses = [(folder / name).stat() for name in (WEIGHTS, SETTINGS)]
    except OSError:
        raise ValueError(f"{folder} is not there, or is not an adapter folder") from None
    return tuple(number for status in statuses for number in (status.st_size, status.st_mtime_ns))


def read_inside(folder: Path, name: str, max_bytes: int) -> bytes:
    """The content of a regular file of `folder`.

    Raises ValueError for a missing or oversized file, and for a link that leads out of the folder.
    """
    path = folder / name
    if not path.is_file():  # a pipe would block the reader
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        found = f"; {', '.join(pickles)} is not read, since a pickle can run code" if pickles else ""
        raise ValueError(f"{folder} has no {name}{found}")
    if path.resolve().parent != folder.parent.resolve() / folder.name:
        raise ValueError(f"{path} is a link that leads out of its folder: copy the file instead")
    with reading(path), path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes: at most {max_bytes:,} are allowed")
    return content


def _json_object(content: bytes) -> dict[str, Any]:
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}: a JSON object is expected")
    for pattern in values.get("alpha_pattern") or {}:
        if _REPEATS.search(pattern):
            raise ValueError(f"its alpha_pattern has {pattern!r}: names without * + and {{ are allowed")
    return values


def _updates(
    folder: Path, lora: dict[str, LowRank], targets: dict[str, Target]
) -> dict[str, tuple[LowRankUpdate, ...]]:
    problems, updates = [], dict[str, list[LowRankUpdate]]()
    for module, change in sorted(lora.items()):
        target = targets.get(module)
        if target is None:
            problems.append(f"unknown: {explain_unknown(module)}")
        elif (problem := _misfit(change, target)) is not None:
            problems.append(f"mis-shaped: {module} {problem}")
        else:
            up = change.up.float().flatten(1) * change.factor
            update = LowRankUpdate(target.first_output, change.down.float().flatten(1).contiguous(), up)
            updates.setdefault(target.name, []).append(update)
    if problems:
        raise ValueError(f"the adapter in {folder} does not fit the model:{list_problems(problems)}")
    scaled = {f"{name} from output {part.first_output}": part.up for name, parts in updates.items() for part in parts}
    check_finite(f"{folder} times its alpha", scaled)
    return {name: tuple(sorted(parts, key=lambda part: part.first_output)) for name, parts in updates.items()}


def _misfit(change: LowRank, target: Target) -> str | None:
    down, up = change.down, change.up
    if not (down.is_floating_point() and up.is_floating_point()):
        return f"has numbers of type {down.dtype} and {up.dtype}: floating-point numbers are needed"
    if down.ndim >= 2 and up.ndim >= 2 and down.shape[0] > 0:
        fits = down[0].numel() == target.num_inputs and up.shape[0] == target.num_outputs
        if fits and up[0].numel() == down.shape[0]:
            return None
    rank = down.shape[0] if down.ndim else 0
    return (
        f"has lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)}: "
        f"({rank or 'r'}, {target.num_inputs}) and ({target.num_outputs}, {rank or 'r'}) are needed"
    )
