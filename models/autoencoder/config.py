"""Settings of an autoencoder, from and to the `config.json` of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

PLAIN_CLASS, TEMPORAL_CLASS = "AutoencoderKL", "AutoencoderKLTemporalDecoder"
CLASS_NAMES = (PLAIN_CLASS, TEMPORAL_CLASS)

# Settings with one implemented value. It is also the default.
_FIXED: dict[str, Any] = {"act_fn": "silu", "shift_factor": None, "latents_mean": None, "latents_std": None}
# Fields that the temporal class does not have, with the value that they have in it.
_FIXED_IN_TEMPORAL: dict[str, Any] = {
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": False,
}
_BLOCK_TYPES = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}


@dataclass(frozen=True)
class AutoencoderConfig:
    """An autoencoder's sizes, and how its latents are used. The fields have diffusers' names and defaults.

    Attributes:
        block_out_channels: channels of each level; a level has half the height and width of the one before.
        layers_per_block: residual blocks of an encoder level; a decoder level has one more.
        norm_num_groups: groups of every group norm.
        mid_block_add_attention: whether the middle of both halves attends over all positions.
        use_quant_conv, use_post_quant_conv: a 1x1 convolution after the encoder, and before the decoder.
        sample_size: height and width of the frames of training; not used.
        scaling_factor: brings the latents to unit variance.
        force_upcast: activations overflow float16, so decode in float32.
        temporal_decoder: the decoder mixes the frames of a video. The encoder never does.
    """

    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    sample_size: Any = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    temporal_decoder: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that no autoencoder has."""
        sizes = {
            "block_out_channels": self.block_out_channels,
            "layers_per_block": (self.layers_per_block,),
            "in_channels": (self.in_channels,),
            "out_channels": (self.out_channels,),
            "latent_channels": (self.latent_channels,),
            "norm_num_groups": (self.norm_num_groups,),
        }
        for name, values in sizes.items():
            if not values or not all(type(value) is int and value > 0 for value in values):
                raise ValueError(f"{name} is {getattr(self, name)!r}: positive whole numbers are needed")
        if any(channels % self.norm_num_groups for channels in self.block_out_channels):
            raise ValueError(
                f"block_out_channels is {self.block_out_channels}: each must be a multiple of norm_num_groups "
                f"({self.norm_num_groups})"
            )
        if not isinstance(self.scaling_factor, int | float):
            raise ValueError(f"scaling_factor is {self.scaling_factor!r}: a number is needed")

    @property
    def class_name(self) -> str:
        """diffusers' name for this kind of autoencoder."""
        return TEMPORAL_CLASS if self.temporal_decoder else PLAIN_CLASS

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> AutoencoderConfig:
        """The config in a `config.json`. Raises ValueError, by name, for settings that are not implemented."""
        is_temporal = values["_class_name"] == TEMPORAL_CLASS
        settings = {name: value for name, value in values.items() if not name.startswith("_")}
        channels = settings.pop("block_out_channels", (64,))
        if not isinstance(channels, Sequence):
            raise ValueError(f"block_out_channels is {channels!r}: a list is needed")
        for name, block_type in _BLOCK_TYPES.items():
            expected = [block_type] * len(channels)
            types = settings.pop(name, expected if is_temporal and name == "up_block_types" else [block_type])
            if not isinstance(types, Sequence) or list(types) != expected:
                raise ValueError(f"{name} is {types}: only {block_type}, one for each level, is supported")
        for name, value in (_FIXED | _FIXED_IN_TEMPORAL if is_temporal else _FIXED).items():
            if settings.pop(name, value) != value:
                raise ValueError(f"{name} is {values[name]!r}; only {value!r} is supported")
        known = {field.name for field in fields(AutoencoderConfig)} - {"temporal_decoder"}
        if unknown := sorted(settings.keys() - known):
            raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        fixed = _FIXED_IN_TEMPORAL if is_temporal else {}
        return AutoencoderConfig(block_out_channels=tuple(channels), temporal_decoder=is_temporal, **fixed, **settings)

    def to_json(self) -> dict[str, Any]:
        """The content of a `config.json` that diffusers reads, too."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "temporal_decoder"}
        values |= _FIXED | {name: [block] * len(self.block_out_channels) for name, block in _BLOCK_TYPES.items()}
        if self.temporal_decoder:
            left_out = {*_FIXED, *_FIXED_IN_TEMPORAL, "up_block_types"}
            values = {name: value for name, value in values.items() if name not in left_out}
        values["block_out_channels"] = list(self.block_out_channels)
        return {"_class_name": self.class_name, **dict(sorted(values.items()))}
