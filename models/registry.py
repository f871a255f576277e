"""The published variants: model names and settings -> configs. A variant is a row, or a suffix of a name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models.config import AttentionMode, Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig

VAE_FACTOR = 8
LATENT_CHANNELS = 4

# depth, width, heads of a size.
SIZES = {"XL": (28, 1152, 16), "L": (24, 1024, 16), "B": (12, 768, 12), "S": (12, 384, 6), "M": (12, 1024, 16)}

# layout, temporal design and sizes of a family.
FAMILIES = {
    "FrameDiT-H": (Layout.ALTERNATING, Temporal.HYBRID, "XL L B S"),
    "FrameDiT-G": (Layout.ALTERNATING, Temporal.MATRIX, "XL L B S"),
    "Latte": (Layout.ALTERNATING, Temporal.LOCAL, "XL L B S M"),
    "DiT3D": (Layout.JOINT, Temporal.LOCAL, "XL L B S M"),
}

COLUMN_HEADS = 64

# Model names start with one of these, the older names among them.
NAMES = {
    "FrameDiTH": "FrameDiT-H",
    "FrameDiTG": "FrameDiT-G",
    "FusedMatLatte": "FrameDiT-H",
    "MatLatte": "FrameDiT-G",
    "Latte": "Latte",
    "DiT3D": "DiT3D",
}

TEXT_SETTINGS: dict[str, Any] = {
    "attention_bias": True,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "sample_size": 64,
    "video_length": 16,
}
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "LatteT2V": {**TEXT_SETTINGS, "family": "LatteT2V", "num_attention_heads": 16, "attention_head_dim": 72},
    "FrameDiTHT2V-XL/256-2-1-2-concat": {
        **TEXT_SETTINGS,
        "family": "FrameDiT-H-T2V",
        "num_row_attn_heads": 16,
        "row_attn_head_dim": 72,
        "num_col_attn_heads": 512,
        "qk_col_attn_head_dim": 1,
        "v_col_attn_head_dim": 2,
        "fuse_mode": "concat",
        "u_type": "pure-softmax",
        "bias_type": "col_row",
    },
}


class TokenMixing(StrEnum):
    """How a published checkpoint stores the token-mixing matrix U."""

    PARAM = "param"
    SOFTMAX = "softmax"
    PURE_SOFTMAX = "pure-softmax"
    NORMALIZED_L1 = "normalized_l1"
    NORMALIZED_L2 = "normalized_l2"
    IDENTITY = "identity"
    SPARSE = "sparse"


class BiasKind(StrEnum):
    """How a published checkpoint stores the bias of a matrix linear."""

    MATRIX = "matrix"
    ROW = "row"
    COL = "col"
    COL_ROW = "col_row"
    SEPARATE_COL_ROW = "separate_col_row"
    NONE = "none"


@dataclass(frozen=True)
class PublishedModel:
    """A config, and how the published checkpoint stores its weights.

    Attributes:
        hybrid_names: keys are those of FrameDiT-H's two-part attention, also if only one part is in use (fuse modes
            `local` and `global`).
        attention_bias: whether q, k and v of ordinary attention have a bias.
    """

    config: TransformerConfig
    mixing: TokenMixing = TokenMixing.PARAM
    bias: BiasKind = BiasKind.MATRIX
    hybrid_names: bool = False
    attention_bias: bool = True


def published_model(
    name: str,
    *,
    num_frames: int,
    image_size: int,
    num_classes: int | None,
    learn_sigma: bool = True,
    attention_mode: str = "math",
) -> PublishedModel:
    """The model called `name`, as in `FrameDiTH-XL/128-512/2-softmax_u-concat`, `Latte-S/2` or `LatteT2V`.

    `num_classes` None or 0 means unconditional. Raises ValueError for a name of no known form and for an attention mode
    that the model cannot have.
    """
    if name in TEXT_MODELS:
        return from_text_settings(
            {**TEXT_MODELS[name], "video_length": num_frames, "sample_size": image_size // VAE_FACTOR}
        )
    match = re.fullmatch(
        rf"(?P<family>{'|'.join(NAMES)})(?P<image>IMG)?-(?P<size>XL|L|B|S|M)"
        r"(?:/(?P<qk>\d+)-(?P<v>\d+))?/(?P<patch>\d+)(?:-(?P<mixing>[a-z0-9_-]+?)_u)?(?:-(?P<fuse>[a-z]+))?",
        name,
    )
    if match is None:
        raise ValueError(_unknown(name))
    family = NAMES[match["family"]]
    if match["image"] and family == "Latte" and attention_mode == "xformers":
        raise ValueError("LatteIMG trained with attention_mode 'xformers' attends across heads: it is not supported")
    if match["size"] not in FAMILIES[family][2].split() or (match["qk"] is not None) != family.startswith("FrameDiT"):
        raise ValueError(_unknown(name))
    depth, width, heads = SIZES[match["size"]]
    settings = {
        "family": family,
        "depth": depth,
        "hidden_size": width,
        "patch_size": int(match["patch"]),
        "num_heads": heads,
        "num_row_heads": heads,
        "num_col_heads": COLUMN_HEADS,
        "qk_col_dim": int(match["qk"] or 0),
        "v_col_dim": int(match["v"] or 0),
        "u_type": match["mixing"] or "param",
        "fuse_mode": match["fuse"] or "concat",
        "input_size": image_size // VAE_FACTOR,
        "in_channels": LATENT_CHANNELS,
        "num_frames": num_frames,
        "num_classes": num_classes,
        "extras": 2 if num_classes else 1,
        "learn_sigma": learn_sigma,
        "attention_mode": attention_mode,
    }
    return from_class_settings(settings)


def from_class_settings(settings: dict[str, Any]) -> PublishedModel:
    """The class-conditional or unconditional model with the published constructor's `settings` and a `family`."""
    family = _choose(settings, "family", FAMILIES)
    layout, temporal, _ = FAMILIES[family]
    extras = settings.get("extras", 1)
    if extras not in (1, 2):
        raise ValueError(f"extras is {extras}: 1 (unconditional) and 2 (class-conditional) are supported")
    hybrid_names = temporal is Temporal.HYBRID
    fuse = settings.get("fuse_mode", "gated") if hybrid_names else None
    if fuse == "local":
        temporal, fuse = Temporal.LOCAL, None
    matrix = None
    if temporal is not Temporal.LOCAL:
        matrix = MatrixAttentionConfig(
            column_heads=settings["num_col_heads"],
            row_heads=settings["num_row_heads"],
            qk_tokens=settings["qk_col_dim"],
            v_tokens=settings["v_col_dim"],
        )
    config = TransformerConfig(
        conditioning=Conditioning.CLASS if extras == 2 else Conditioning.NONE,
        layout=layout,
        temporal=temporal,
        depth=settings["depth"],
        width=settings["hidden_size"],
        heads=settings["num_row_heads" if family.startswith("FrameDiT") else "num_heads"],
        patch_size=settings["patch_size"],
        latent_channels=settings.get("in_channels", LATENT_CHANNELS),
        latent_size=settings["input_size"],
        num_frames=settings["num_frames"],
        learn_sigma=settings.get("learn_sigma", True),
        num_classes=settings["num_classes"] if extras == 2 else None,
        matrix=matrix,
        fuse=Fuse(fuse) if fuse else None,
        attention_mode=_attention_mode(settings.get("attention_mode", "math"), family, matrix is not None),
    )
    attention_bias = settings.get("use_bias", True) if hybrid_names else True
    return PublishedModel(config, _mixing(settings), _bias(settings), hybrid_names, attention_bias)


def from_text_settings(settings: dict[str, Any]) -> PublishedModel:
    """The text model with the published constructor's `settings` (a diffusers `config.json`) and a `family`."""
    family = _choose(settings, "family", {"LatteT2V": None, "FrameDiT-H-T2V": None})
    _refuse_other_text_settings(settings)
    hybrid_names = family == "FrameDiT-H-T2V"
    fuse = settings.get("fuse_mode", "concat") if hybrid_names else "local"
    is_spatial = not settings.get("enable_temporal_attentions", True)
    if settings.get("disable_matrix_attention") or is_spatial:
        fuse = "local"
    temporal = {"local": Temporal.LOCAL, "global": Temporal.MATRIX}.get(fuse, Temporal.HYBRID)
    heads = settings["num_row_attn_heads" if hybrid_names else "num_attention_heads"]
    columns = settings.get("num_col_attn_heads", 0)
    matrix = None
    if temporal is not Temporal.LOCAL:
        matrix = MatrixAttentionConfig(
            column_heads=columns,
            row_heads=heads,
            qk_tokens=columns * settings["qk_col_attn_head_dim"],
            v_tokens=columns * settings["v_col_attn_head_dim"],
        )
    config = TransformerConfig(
        conditioning=Conditioning.TEXT,
        layout=Layout.SPATIAL if is_spatial else Layout.ALTERNATING,
        temporal=temporal,
        depth=settings["num_layers"] if is_spatial else 2 * settings["num_layers"],
        width=heads * settings["row_attn_head_dim" if hybrid_names else "attention_head_dim"],
        heads=heads,
        patch_size=settings["patch_size"],
        latent_channels=settings["in_channels"],
        latent_size=settings["sample_size"],
        num_frames=settings.get("video_length", 16),
        learn_sigma=(settings.get("out_channels") or settings["in_channels"]) == 2 * settings["in_channels"],
        text_width=settings["caption_channels"],
        matrix=matrix,
        fuse=Fuse(fuse) if temporal is Temporal.HYBRID else None,
    )
    return PublishedModel(
        config, _mixing(settings), _bias(settings), hybrid_names, settings.get("attention_bias", False)
    )


def _refuse_other_text_settings(settings: dict[str, Any]) -> None:
    supported = {
        "norm_type": "ada_norm_single",
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "attention_type": "default",
        "norm_eps": 1e-6,
    }
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{name} is {settings[name]!r}: text models are supported with {value!r}")
    if settings["sample_size"] == 128:
        raise ValueError("sample_size is 128: PixArt-alpha's size and aspect-ratio conditions are not supported")


def _attention_mode(mode: str, family: str, has_matrix: bool) -> AttentionMode:
    """The computation of the published `attention_mode` in models of `family`."""
    if mode in ("math", "xformers") or (mode == "flash" and family == "DiT3D"):
        return AttentionMode.MATH
    if mode != "flash":
        raise ValueError(f"attention_mode is {mode!r}; supported are math, xformers and flash")
    if has_matrix:
        raise ValueError("attention_mode is 'flash', which matrix attention has not: it can only be 'math'")
    return AttentionMode.FLASH


def _mixing(settings: dict[str, Any]) -> TokenMixing:
    return TokenMixing(_choose(settings, "u_type", {kind.value: None for kind in TokenMixing}, "param"))


def _bias(settings: dict[str, Any]) -> BiasKind:
    if not settings.get("use_bias", True):
        return BiasKind.NONE
    return BiasKind(_choose(settings, "bias_type", {kind.value: None for kind in BiasKind}, "matrix"))


def _choose(settings: dict[str, Any], name: str, known: dict[str, Any], default: str | None = None) -> str:
    value = settings.get(name, default)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; known are {', '.join(known)}")
    return str(value)


def _unknown(name: str) -> str:
    return (
        f"unknown model name {name!r}: known forms are FrameDiTH-SIZE/QK-V/PATCH[-MIXING_u][-FUSE] (or FusedMatLatte), "
        f"FrameDiTG-SIZE/QK-V/PATCH[-MIXING_u] (or MatLatte), Latte-SIZE/PATCH, DiT3D-SIZE/PATCH with SIZE one of XL, "
        f"L, B, S, M (each also with IMG after the family's name), {', '.join(TEXT_MODELS)}"
    )
