"""The four temporal designs at one width and depth. What differs is the attention over time, and nothing else."""

from dataclasses import dataclass

from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from training.designs.text import WIDTH as TEXT_WIDTH

NUM_FRAMES = 32
LATENT_SIZE = 8
LATENT_CHANNELS = 8
WIDTH, DEPTH, HEADS = 192, 6, 6
_TOKENS = (LATENT_SIZE // 2) ** 2


@dataclass(frozen=True)
class Design:
    """One of the four: the id of its model, its name in the paper, and its config."""

    model: str
    title: str
    config: TransformerConfig


def _config(
    layout: Layout, temporal: Temporal, matrix: MatrixAttentionConfig | None = None, fuse: Fuse | None = None
) -> TransformerConfig:
    return TransformerConfig(
        conditioning=Conditioning.TEXT,
        layout=layout,
        temporal=temporal,
        depth=DEPTH,
        width=WIDTH,
        heads=HEADS,
        patch_size=2,
        latent_channels=LATENT_CHANNELS,
        latent_size=LATENT_SIZE,
        num_frames=NUM_FRAMES,
        text_width=TEXT_WIDTH,
        matrix=matrix,
        fuse=fuse,
    )


# As in the published models, queries and keys have half as many mapped tokens as a frame, and values twice as many.
_MATRIX = MatrixAttentionConfig(column_heads=4, row_heads=HEADS, qk_tokens=_TOKENS // 2, v_tokens=2 * _TOKENS)

DESIGNS = {
    "h": Design("demo-h", "FrameDiT-H (hybrid)", _config(Layout.ALTERNATING, Temporal.HYBRID, _MATRIX, Fuse.CONCAT)),
    "g": Design("demo-g", "FrameDiT-G (matrix)", _config(Layout.ALTERNATING, Temporal.MATRIX, _MATRIX)),
    "local": Design("demo-local", "local (Latte)", _config(Layout.ALTERNATING, Temporal.LOCAL)),
    "3d": Design("demo-3d", "full 3D (DiT3D)", _config(Layout.JOINT, Temporal.LOCAL)),
}
