"""The two demo models: what is trained, and how it is presented."""

from dataclasses import dataclass, replace

from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from training.stages.text_encoder import WIDTH as TEXT_WIDTH
from training.world.scenes import CLASS_NAMES, DIRECTIONS, MOTIONS

NUM_FRAMES = 16
LATENT_SIZE = 8


@dataclass(frozen=True)
class Demo:
    """A demo model: `motions` are those of its training scenes; sampler, steps and guidance are its defaults."""

    name: str
    description: str
    config: TransformerConfig
    motions: tuple[str, ...]
    sampler: str
    num_inference_steps: int
    guidance_scale: float
    examples: tuple[str, ...] = ()


def _config(conditioning: Conditioning, depth: int, width: int, heads: int) -> TransformerConfig:
    return TransformerConfig(
        conditioning=conditioning,
        layout=Layout.ALTERNATING,
        temporal=Temporal.HYBRID,
        depth=depth,
        width=width,
        heads=heads,
        patch_size=2,
        latent_channels=4,
        latent_size=LATENT_SIZE,
        num_frames=NUM_FRAMES,
        num_classes=len(CLASS_NAMES) if conditioning is Conditioning.CLASS else None,
        text_width=TEXT_WIDTH if conditioning is Conditioning.TEXT else None,
        matrix=MatrixAttentionConfig(column_heads=4, row_heads=heads, qk_tokens=8, v_tokens=32),
        fuse=Fuse.CONCAT,
    )


DEMOS = {
    "text": Demo(
        name="demo-text",
        description="A coloured shape that moves, spins, grows, shrinks or stays. A small FrameDiT-H.",
        config=replace(_config(Conditioning.TEXT, depth=6, width=256, heads=8), clean_known_frames=True),
        motions=MOTIONS,
        sampler="dpmpp_2m",
        num_inference_steps=20,
        guidance_scale=3.0,
        examples=(
            "a red circle moving right on a black background",
            "a yellow circle growing on a brown background",
            "a large blue square staying still on a gray background",
            "a white star spinning on a navy background",
            "purple star that slides to the left, on black",
        ),
    ),
    "class": Demo(
        name="demo-class",
        description="A shape that moves left, right, up or down, by class. A small FrameDiT-H.",
        config=_config(Conditioning.CLASS, depth=6, width=256, heads=8),
        motions=DIRECTIONS,
        sampler="dpmpp_2m",
        num_inference_steps=20,
        guidance_scale=3.0,
    ),
}
