"""Settings of a T5 encoder, from and to the `config.json` of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_FAMILIES = ("t5", "mt5")  # of one architecture; the encoder of umt5 has another one
# The activation that transformers runs for each `feed_forward_proj`.
_ACTIVATIONS = {"relu": "relu", "gated-gelu": "gelu_new"}
# Settings that change the computation, with their only supported value. It is also the default.
_FIXED: dict[str, Any] = {"is_decoder": False, "quantization_config": None}


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder. The fields have transformers' names and defaults.

    Attributes:
        d_kv: width of a head.
        d_ff: inner width of the feed-forward layers.
        relative_attention_num_buckets, relative_attention_max_distance: distances between tokens share so many learned
            biases, up to that distance.
        dropout_rate: in training.
        feed_forward_proj: "relu" (T5 1.0) or "gated-gelu" (T5 1.1).
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that no encoder has, and for other feed-forward layers."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (type(value) is int and value > 0):
                raise ValueError(f"{field.name} is {value!r}: a positive whole number is needed")
            if field.type == "float" and not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"{field.name} is {value!r}: a number of at least 0 is needed")
        if self.relative_attention_num_buckets < 4:
            raise ValueError(f"relative_attention_num_buckets is {self.relative_attention_num_buckets}: at least 4")
        if self.feed_forward_proj not in _ACTIVATIONS:
            known = " and ".join(_ACTIVATIONS)
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; supported are {known}")

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layers multiply two projections."""
        return self.feed_forward_proj.startswith("gated-")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> T5Config:
        """The config in a `config.json`. Raises ValueError, by name, for settings that are not implemented.

        The settings of the decoder and of text generation are ignored.
        """
        if values.get("model_type", "t5") not in _FAMILIES:
            raise ValueError(f"model_type is {values['model_type']!r}; supported are {' and '.join(_FAMILIES)}")
        config = T5Config(**{field.name: values[field.name] for field in fields(T5Config) if field.name in values})
        derived = {"dense_act_fn": _ACTIVATIONS[config.feed_forward_proj], "is_gated_act": config.is_gated}
        for name, value in (_FIXED | derived).items():
            if values.get(name, value) != value:
                raise ValueError(f"{name} is {values[name]!r}; only {value!r} is supported here")
        return config

    def to_json(self, dtype: str) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads, too; `dtype` is that of the weights."""
        return {
            "architectures": ["T5EncoderModel"],
            **asdict(self),
            "dense_act_fn": _ACTIVATIONS[self.feed_forward_proj],
            "dtype": dtype,
            "eos_token_id": 1,
            "is_encoder_decoder": False,
            "is_gated_act": self.is_gated,
            "model_type": "t5",
            "pad_token_id": 0,
            "use_cache": False,
        }
