"""The checkpoint folder: its files, its config.json, and creating it atomically."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from models.config import Conditioning, TransformerConfig
from models.sampling.schedule import BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
VAE = "vae"
TEXT_ENCODER = "text_encoder"
TOKENIZER = "tokenizer"

FORMAT = 1
_SECTIONS = {
    "format": "the version of this layout",
    "transformer": "the settings of the transformer",
    "schedule": "the noise schedule that it was trained with",
    "vae": "how its latents are scaled",
    "text": "how prompts are encoded (text models only)",
    "provenance": "what it was converted from",
}
_REQUIRED_SECTIONS = {"transformer", "schedule", "vae"}
_REQUIRED_SCHEDULE = {"num_train_timesteps", "beta_start", "beta_end"}
_SCHEDULE_ENUMS = {
    "beta_schedule": BetaSchedule,
    "prediction_type": PredictionType,
    "timestep_spacing": Spacing,
    "variance_type": VarianceType,
}


@dataclass(frozen=True)
class CheckpointConfig:
    """The content of config.json.

    Attributes:
        scaling_factor: factor that training multiplied the VAE's latents by.
        max_tokens: longer prompts are cut to so many tokens (text models only).
        cut_negative_to_prompt: give the negative prompt as many tokens as the prompt, its padding among them, as the
            published text-to-video sampling does; otherwise it has its own tokens (text models only).
        mask_feature: cut the prompt to its own tokens, as published; otherwise the model attends to its padding up to
            `max_tokens`, too (text models only).
        floor_pixels: round the pixels of a video down, as the published text-to-video sampling does, not to nearest.
        provenance: what the checkpoint was converted from, such as its `model` name and its `weights`.
    """

    transformer: TransformerConfig
    schedule: NoiseSchedule
    scaling_factor: float
    max_tokens: int | None = None
    cut_negative_to_prompt: bool = False
    mask_feature: bool = True
    floor_pixels: bool = False
    provenance: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        is_text = self.transformer.conditioning is Conditioning.TEXT
        if is_text != (self.max_tokens is not None):
            raise ValueError(
                f"max_tokens is {self.max_tokens} with conditioning {self.transformer.conditioning.value!r}: "
                "text models need it, and no others have it"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "transformer": self.transformer.to_dict(),
            "schedule": _schedule_to_dict(self.schedule),
            "vae": {"scaling_factor": self.scaling_factor, "floor_pixels": self.floor_pixels},
        }
        if self.max_tokens is not None:
            values["text"] = {
                "max_tokens": self.max_tokens,
                "cut_negative_to_prompt": self.cut_negative_to_prompt,
                "mask_feature": self.mask_feature,
            }
        if self.provenance:
            values["provenance"] = self.provenance
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> CheckpointConfig:
        """Read a config from `values`. Raises ValueError for another format version, or a missing or unknown value."""
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')!r}, but this version of FrameDiT reads {FORMAT}")
        if unknown := sorted(set(values) - set(_SECTIONS)):
            raise ValueError(f"unknown section {', '.join(unknown)}; known are {', '.join(_SECTIONS)}")
        if missing := sorted(_REQUIRED_SECTIONS - set(values)):
            raise ValueError(f"missing section {', '.join(f'{name} ({_SECTIONS[name]})' for name in missing)}")
        vae = _section(values, "vae", {"scaling_factor"}, {"floor_pixels"})
        text = {}
        if "text" in values:
            text = _section(values, "text", {"max_tokens"}, {"cut_negative_to_prompt", "mask_feature"})
        return CheckpointConfig(
            transformer=TransformerConfig.from_dict(values["transformer"]),
            schedule=_schedule_from_dict(values),
            scaling_factor=float(vae["scaling_factor"]),
            floor_pixels=bool(vae.get("floor_pixels", False)),
            provenance=values.get("provenance", {}),
            **text,
        )


def _schedule_to_dict(schedule: NoiseSchedule) -> dict[str, Any]:
    """The required values, and those that are not the default."""
    defaults = asdict(NoiseSchedule())
    return {
        name: value for name, value in asdict(schedule).items() if name in _REQUIRED_SCHEDULE or value != defaults[name]
    }


def _schedule_from_dict(values: dict[str, Any]) -> NoiseSchedule:
    known = {field.name for field in fields(NoiseSchedule)}
    section = _section(values, "schedule", _REQUIRED_SCHEDULE, known - _REQUIRED_SCHEDULE)
    enums = {name: kind(section[name]) for name, kind in _SCHEDULE_ENUMS.items() if section.get(name) is not None}
    return NoiseSchedule(**section | enums)


def _section(
    values: dict[str, Any], name: str, keys: set[str], optional: set[str] | frozenset[str] = frozenset()
) -> dict[str, Any]:
    section = values[name]
    if not isinstance(section, dict) or not keys <= set(section) <= keys | optional:
        got = ", ".join(sorted(section)) if isinstance(section, dict) else repr(section)
        also = f", and may hold {', '.join(sorted(optional))}" if optional else ""
        raise ValueError(f"section {name} holds {got or 'nothing'}; it must hold {', '.join(sorted(keys))}{also}")
    return section


def read_config(folder: Path) -> CheckpointConfig:
    """Read the config.json of `folder`. Raises ValueError if it is not a checkpoint, or one of another version."""
    path = folder / CONFIG
    if not path.is_file():
        found = "does not exist" if not folder.exists() else f"has no {CONFIG}"
        raise ValueError(f"{folder} is not a checkpoint folder: it {found}. `framedit convert` makes one")
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        return CheckpointConfig.from_dict(values)
    except (ValueError, TypeError) as error:  # a TypeError is a value of another type, such as text for a number
        raise ValueError(f"cannot read {path}: {error}") from error


def write_config(folder: Path, config: CheckpointConfig) -> None:
    """Write the config.json of `folder`."""
    (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create `path` atomically: yield a temporary folder beside it, which is renamed at the end of the block.

    If the block raises, the temporary folder is deleted. Raises FileExistsError if `path` is not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} already exists: name another folder, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        _open_to_others(temporary)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _open_to_others(folder: Path) -> None:
    """Set the modes that the umask allows: mkdtemp and safetensors let only the owner read."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
