"""The model card of the attacked server."""

from jobs.cards import ModelCard

CARD = ModelCard(
    id="abused",
    description="a text model for the attacks",
    created=1_700_000_000,
    conditioning="text",
    num_frames=16,
    min_frames=2,
    max_frames=16,
    height=64,
    width=64,
    fps=8,
    num_inference_steps=20,
    max_inference_steps=250,
    guidance_scale=7.5,
    sampler="ddim",
    samplers=["ddim"],
    negative_prompt="",
    max_prompt_characters=300,
)
