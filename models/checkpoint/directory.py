"""The checkpoint folder: which files it holds, its config.json, and writing one whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import Conditioning, TransformerConfig
from models.sampling.schedule import NoiseSchedule

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
VAE = "vae"
TEMPORAL_VAE = "vae_temporal_decoder"
TEXT_ENCODER = "text_encoder"
TOKENIZER = "tokenizer"

FORMAT = 1
_SECTIONS = {
    "format": "the version of this layout",
    "transformer": "the settings of the transformer",
    "schedule": "the noise schedule that it was trained with",
    "vae": "how its latents are scaled",
    "text": "how prompts are encoded (text models only)",
}


@dataclass(frozen=True)
class CheckpointConfig:
    """What config.json says.

    Attributes:
        scaling_factor: what training multiplied the VAE's latents by.
        max_tokens: where longer prompts are cut (text models only).
        cut_negative_to_prompt: give the negative prompt as many tokens as the prompt, its padding among them, as the
            published text-to-video sampling does; otherwise it has its own tokens (text models only).
    """

    transformer: TransformerConfig
    schedule: NoiseSchedule
    scaling_factor: float
    max_tokens: int | None = None
    cut_negative_to_prompt: bool = False

    def __post_init__(self) -> None:
        is_text = self.transformer.conditioning is Conditioning.TEXT
        if is_text != (self.max_tokens is not None):
            raise ValueError(
                f"max_tokens is {self.max_tokens} with conditioning {self.transformer.conditioning.value!r}: "
                "text models need it, and no others have it"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        schedule = self.schedule
        values: dict[str, Any] = {
            "format": FORMAT,
            "transformer": self.transformer.to_dict(),
            "schedule": {
                "num_train_timesteps": schedule.num_train_timesteps,
                "beta_start": schedule.beta_start,
                "beta_end": schedule.beta_end,
            },
            "vae": {"scaling_factor": self.scaling_factor},
        }
        if self.max_tokens is not None:
            values["text"] = {"max_tokens": self.max_tokens, "cut_negative_to_prompt": self.cut_negative_to_prompt}
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> CheckpointConfig:
        """The config in `values`. Raises ValueError for another format version, or a missing or unknown value."""
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')!r}, but this version of FrameDiT reads {FORMAT}")
        if unknown := sorted(set(values) - set(_SECTIONS)):
            raise ValueError(f"unknown section {', '.join(unknown)}; known are {', '.join(_SECTIONS)}")
        if missing := sorted({"transformer", "schedule", "vae"} - set(values)):
            raise ValueError(f"missing section {', '.join(f'{name} ({_SECTIONS[name]})' for name in missing)}")
        schedule = _section(values, "schedule", {"num_train_timesteps", "beta_start", "beta_end"})
        text = _section(values, "text", {"max_tokens"}, {"cut_negative_to_prompt"}) if "text" in values else {}
        return CheckpointConfig(
            transformer=TransformerConfig.from_dict(values["transformer"]),
            schedule=NoiseSchedule(**schedule),
            scaling_factor=float(_section(values, "vae", {"scaling_factor"})["scaling_factor"]),
            **text,
        )


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
    """The config.json of `folder`. Raises ValueError for a folder that is no checkpoint, or one of another version."""
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


def find_vae(folder: Path) -> Path:
    """The VAE in a checkpoint or diffusers folder: the one with a temporal decoder where there is one, as published."""
    temporal = folder / TEMPORAL_VAE
    return temporal if temporal.is_dir() else folder / VAE


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends, and disappears when it raises.

    So a folder is there whole or not at all. Raises FileExistsError where `path` already holds something.
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
    """Give everything the modes that the umask allows: mkdtemp and safetensors let only the owner read."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
