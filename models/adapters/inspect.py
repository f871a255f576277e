"""A description of an adapter folder: the layers that it changes, whatever its model is."""

from __future__ import annotations

from pathlib import Path

from models.adapters.read import SETTINGS, WEIGHTS, base_model_of, read_lora

_MAX_BYTES = 8 << 30


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and not a checkpoint."""
    return (folder / SETTINGS).is_file() or (folder / WEIGHTS).is_file()


def inspect_adapter(folder: Path) -> list[tuple[str, str]]:
    """Names and values that describe the adapter in `folder`. Raises ValueError as `read_lora` does."""
    lora, fingerprint = read_lora(folder, _MAX_BYTES)
    changes = lora.values()
    ranks = sorted({change.down.shape[0] for change in changes})
    factors = sorted({change.factor for change in changes})
    kinds = sorted({_kind(module) for module in lora})
    parameters = sum(change.down.numel() + change.up.numel() for change in changes)
    dtypes = sorted({str(change.down.dtype).removeprefix("torch.") for change in changes})
    return [
        ("kind", "LoRA adapter"),
        ("base model", base_model_of(folder) or "not stated"),
        ("layers", f"{len(lora)}: {', '.join(kinds)}"),
        ("rank", ", ".join(map(str, ranks))),
        ("alpha / rank", ", ".join(f"{factor:g}" for factor in factors)),
        ("parameters", f"{parameters:,} stored as {', '.join(dtypes)}"),
        ("fingerprint", fingerprint),
        ("files", f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()):,} bytes"),
    ]


def _kind(module: str) -> str:
    """The last name of a layer that is no number: `to_out` of `attn1.to_out.0`."""
    return next((name for name in reversed(module.split(".")) if not name.isdigit()), module)
