"""The settings of a FrameDiT variant: one frozen row of data. Without torch, so that any process can read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Layout(StrEnum):
    """How blocks divide space and time."""

    ALTERNATING = "alternating"  # spatial, temporal, spatial, temporal ...
    JOINT = "joint"  # every block attends over all tokens of all frames
    SPATIAL = "spatial"  # every block attends within its frame: a text model whose temporal blocks are switched off


class Temporal(StrEnum):
    """The attention of the temporal blocks of the alternating layout."""

    LOCAL = "local"  # over the frames, at the same token position (Latte)
    MATRIX = "matrix"  # between whole frames (FrameDiT-G)
    HYBRID = "hybrid"  # both side by side, fused (FrameDiT-H)


class Conditioning(StrEnum):
    """The input that says what to generate. TEXT also selects the text family's modulation and cross attention."""

    NONE = "none"
    CLASS = "class"
    TEXT = "text"


class Fuse(StrEnum):
    """How a hybrid block fuses its local and its global (matrix) output."""

    CONCAT = "concat"
    SUM = "sum"
    GATED = "gated"
    GATED_NO_SCALE = "gated_no_scale"
    CONTENT_GATED = "content_based_gated"
    DIFFERENCE_GATED = "difference_content_based_gated"


class AttentionMode(StrEnum):
    """How ordinary attention of the class family puts its heads back together."""

    MATH = "math"  # token by token, as usual
    FLASH = "flash"  # the published `flash` mode reads heads before tokens, and weights trained with it depend on that


@dataclass(frozen=True)
class MatrixAttentionConfig:
    """Sizes of matrix attention: `column_heads` split `qk_tokens` and `v_tokens`, `row_heads` split the width."""

    column_heads: int
    row_heads: int
    qk_tokens: int
    v_tokens: int

    def __post_init__(self) -> None:
        for name, tokens in (("qk_tokens", self.qk_tokens), ("v_tokens", self.v_tokens)):
            if tokens % self.column_heads:
                raise ValueError(f"{name} is {tokens}: it must be a multiple of column_heads, {self.column_heads}")


@dataclass(frozen=True)
class TransformerConfig:
    """One FrameDiT transformer.

    Attributes:
        depth: number of blocks (an alternating model has depth / 2 spatial and depth / 2 temporal ones).
        width: channels of a token, D.
        latent_size: height and width of a latent frame.
        num_frames: the number of frames of training, and the most that one pass takes.
        num_classes: number of classes without the null class (class-conditional models only).
        text_width: width of the text encoder's output (text models only).
        matrix, fuse: for the temporal designs that have them.
        attention_mode: of spatial, local and joint attention.
        clean_known_frames: known frames are given to it without noise, as in its training
            (`models.sampling.known_frames`).
    """

    conditioning: Conditioning
    layout: Layout
    temporal: Temporal
    depth: int
    width: int
    heads: int
    patch_size: int
    latent_channels: int
    latent_size: int
    num_frames: int
    learn_sigma: bool = True
    num_classes: int | None = None
    text_width: int | None = None
    matrix: MatrixAttentionConfig | None = None
    fuse: Fuse | None = None
    attention_mode: AttentionMode = AttentionMode.MATH
    clean_known_frames: bool = False

    def __post_init__(self) -> None:
        needs_matrix = self.layout is Layout.ALTERNATING and self.temporal is not Temporal.LOCAL
        rules = (
            (self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}"),
            (self.width % 4 == 0, f"width {self.width} must be a multiple of 4 for its sin-cos positions"),
            (
                self.latent_size % self.patch_size == 0,
                f"latent_size {self.latent_size} must be a multiple of patch_size {self.patch_size}",
            ),
            (
                self.layout is not Layout.ALTERNATING or self.depth % 2 == 0,
                f"an alternating depth must be even, not {self.depth}",
            ),
            (
                (self.conditioning is Conditioning.CLASS) == (self.num_classes is not None),
                f"num_classes is {self.num_classes} with conditioning {self.conditioning.value!r}: "
                "class-conditional models need it, and no others have it",
            ),
            (
                (self.conditioning is Conditioning.TEXT) == (self.text_width is not None),
                f"text_width is {self.text_width} with conditioning {self.conditioning.value!r}: "
                "text models need it, and no others have it",
            ),
            (
                needs_matrix == (self.matrix is not None),
                f"temporal {self.temporal.value!r}, layout {self.layout.value!r}: "
                + ("matrix sizes are missing" if needs_matrix else "matrix sizes have no meaning"),
            ),
            (
                (needs_matrix and self.temporal is Temporal.HYBRID) == (self.fuse is not None),
                f"fuse is {self.fuse}: hybrid models need it, and no others have it",
            ),
            (
                self.matrix is None or self.width % self.matrix.row_heads == 0,
                f"width {self.width} must be a multiple of the matrix attention's row_heads",
            ),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(f"not a FrameDiT model: {message}")

    @property
    def out_channels(self) -> int:
        """Channels of the output: C of the prediction, then C of the variance if it is learned."""
        return self.latent_channels * (2 if self.learn_sigma else 1)

    @property
    def tokens_per_frame(self) -> int:
        """Number of tokens of a frame, N."""
        return (self.latent_size // self.patch_size) ** 2

    def is_temporal(self, block: int) -> bool:
        """Whether block `block` is temporal: every second block of the alternating layout."""
        return self.layout is Layout.ALTERNATING and block % 2 == 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TransformerConfig:
        """Read a config from `values`. Raises ValueError, by name, for an unknown, missing or impossible value."""
        known = {field.name for field in fields(TransformerConfig)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown transformer setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        enums = {
            "conditioning": Conditioning,
            "layout": Layout,
            "temporal": Temporal,
            "fuse": Fuse,
            "attention_mode": AttentionMode,
        }
        try:
            read: dict[str, Any] = {
                name: enums[name](value) if name in enums and value else value for name, value in values.items()
            }
            if values.get("matrix"):
                read["matrix"] = MatrixAttentionConfig(**values["matrix"])
            return TransformerConfig(**read)
        except TypeError as error:
            raise ValueError(f"incomplete transformer settings: {error}") from error
