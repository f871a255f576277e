"""The demo adapter: a LoRA of demo-text that teaches it a shape, the sparkle, on a CPU.

Only the low-rank updates are trained, through the same code that serves them. A quarter of the videos show the shapes
that the model knows already, so that it keeps them.
"""

import argparse
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from models.adapters.adapter import Adapter, LowRankUpdate, ScaledAdapter
from models.adapters.row_adapters import RowAdapters
from models.adapters.targets import Target, find_targets
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.conditioning import Condition
from models.config import TransformerConfig
from training.loop import LoopSettings, train
from training.stages.conditions import DROPOUT
from training.stages.diffusion import draw_timesteps
from training.stages.losses import diffusion_losses, terms_of
from training.world import prompts
from training.world.renderer import render
from training.world.scenes import ADAPTER_SHAPE, ATTRIBUTES, RENDERED_SHAPES, SHAPES, Scene, Scenes, Split, draw_scenes

# The layers that FrameDiT's own text training adapts.
TRAINED_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
KNOWN_SHARE = 0.25
_STAR = SHAPES.index("star")
_STAR_WORDS = re.compile(r"five-pointed star|star shape|pentagram|star", re.IGNORECASE)


class TrainedAdapter(nn.Module):
    """lora_A and lora_B of each published layer. The update starts at zero."""

    def __init__(self, config: TransformerConfig, rank: int) -> None:
        super().__init__()
        self.config = config
        self.targets = _trained_targets(config)
        self.downs = nn.ParameterList(_random_down(rank, target.num_inputs) for target in self.targets.values())
        self.ups = nn.ParameterList(torch.zeros(target.num_outputs, rank) for target in self.targets.values())

    def adapter(self) -> Adapter:
        """The adapter of the present numbers, through which gradients flow back to them."""
        updates: dict[str, tuple[LowRankUpdate, ...]] = {}
        for target, down, up in zip(self.targets.values(), self.downs, self.ups, strict=True):
            update = LowRankUpdate(target.first_output, down, up)
            updates[target.name] = (*updates.get(target.name, ()), update)
        return Adapter(self.config, updates, "training")

    def to_peft(self) -> dict[str, Tensor]:
        """The tensors by peft's names, in half precision."""
        return {name: value.detach().half().contiguous() for name, value in self._by_peft_name().items()}

    @torch.no_grad()
    def start_from(self, folder: Path) -> None:
        """Go on from the numbers of an adapter folder."""
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, value in self._by_peft_name().items():
            value.copy_(tensors[name])

    def _by_peft_name(self) -> dict[str, Tensor]:
        return {
            f"base_model.model.{module}.lora_{side}.weight": value
            for module, down, up in zip(self.targets, self.downs, self.ups, strict=True)
            for side, value in (("A", down), ("B", up))
        }


def _trained_targets(config: TransformerConfig) -> dict[str, Target]:
    """The layers of TRAINED_LAYERS, each by one of its names: the first that is known."""
    targets: dict[tuple[str, int], tuple[str, Target]] = {}
    for module, target in find_targets(config).items():
        if module.endswith(TRAINED_LAYERS):
            targets.setdefault((target.name, target.first_output), (module, target))
    return dict(targets.values())


def _random_down(rank: int, num_inputs: int) -> Tensor:
    return torch.empty(rank, num_inputs).uniform_(-1, 1) / math.sqrt(num_inputs)


@torch.no_grad()
def encode_videos(checkpoint: Checkpoint, num_videos: int, seed: int) -> tuple[Tensor, list[str]]:
    """Latents (N, T, C, H, W) of random scenes, most of them with the new shape, and a prompt for each."""
    scenes = draw_scenes(num_videos, seed, Split.ALL)
    is_new = torch.arange(num_videos) >= KNOWN_SHARE * num_videos
    shapes, rng = ATTRIBUTES.index("shape"), random.Random(seed)
    worded = scenes.attributes.clone()
    worded[is_new, shapes] = _STAR
    shown = worded.clone()
    shown[is_new, shapes] = RENDERED_SHAPES.index(ADAPTER_SHAPE)
    texts = [_word(Scene.from_row(row), bool(new), rng) for row, new in zip(worded.tolist(), is_new, strict=True)]
    videos = Scenes(shown, scenes.jitters)
    parts = [videos[start : start + 8] for start in range(0, num_videos, 8)]
    return torch.cat([_encode(checkpoint, part) for part in tqdm(parts, desc="encoding", unit="batch")]), texts


def _encode(checkpoint: Checkpoint, scenes: Scenes) -> Tensor:
    frames = render(scenes, checkpoint.config.num_frames)
    latents = checkpoint.vae.vae.encode(frames.flatten(0, 1)).mean
    return latents.view(*frames.shape[:2], *latents.shape[1:]) * checkpoint.vae.scaling_factor


def _word(scene: Scene, is_new: bool, rng: random.Random) -> str:
    """A wording of the scene. The new shape is worded as a star, of which the word is then exchanged."""
    text = prompts.sample(scene, rng)
    while is_new and not _STAR_WORDS.search(text):
        text = prompts.sample(scene, rng)
    return _STAR_WORDS.sub(ADAPTER_SHAPE, text) if is_new else text


def train_adapter(
    checkpoint: Checkpoint,
    trained: TrainedAdapter,
    latents: Tensor,
    texts: Sequence[str],
    settings: LoopSettings,
    batch: int,
) -> None:
    """Train on `latents` (N, T, C, H, W) and their prompts. Some prompts are left out, as in the model's training."""
    transformer = checkpoint.transformer
    conditions = [checkpoint.condition(text) for text in texts]
    unconditional = [checkpoint.negative("", condition) for condition in conditions]
    terms = terms_of(checkpoint.schedule, latents.device)

    def loss_of_step(step: int) -> dict[str, Tensor]:
        torch.manual_seed(step)
        indices = torch.randint(len(latents), (batch,))
        timesteps = draw_timesteps(batch, checkpoint.schedule.num_train_timesteps, latents.device)
        clean = latents[indices]
        noise = torch.randn_like(clean)
        at = terms.at(timesteps)
        dropped = torch.rand(batch) < DROPOUT
        condition = Condition.concat(
            [(unconditional if drop else conditions)[index] for index, drop in zip(indices, dropped, strict=True)]
        )
        adapters = RowAdapters([(ScaledAdapter(trained.adapter(), 1.0),)] * batch)
        output = transformer(at.signal * clean + at.noise * noise, timesteps, condition, adapters)
        return diffusion_losses(output, clean, noise, terms, timesteps)

    train(settings, trained, loss_of_step)


def write_folder(folder: Path, trained: TrainedAdapter, rank: int) -> None:
    """Write the adapter in peft's layout, with its card."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained.to_peft(), folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": "demo-text",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(TRAINED_LAYERS),
    }
    card = {
        "model": "demo-text",
        "description": "Teaches demo-text a shape that it does not know: the sparkle, a four-pointed star.",
        "scale": 1.0,
        "trigger_words": [ADAPTER_SHAPE],
    }
    for name, content in (("adapter_config.json", settings), ("card.json", card)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/demo-text"))
    parser.add_argument("--work", type=Path, default=Path("build/training/demo-sparkle"))
    parser.add_argument("--output", type=Path, default=Path("adapters/demo-sparkle"))
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--steps", type=int, default=340)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--start-from", type=Path, default=None, help="an adapter folder to begin with")
    options = parser.parse_args(arguments)
    checkpoint = load_checkpoint(options.checkpoint)
    torch.manual_seed(0)
    trained = TrainedAdapter(checkpoint.config, options.rank)
    if options.start_from is not None:
        trained.start_from(options.start_from)
    latents, texts = encode_videos(checkpoint, options.videos, seed=0)
    settings = LoopSettings(
        options.work,
        options.steps,
        options.learning_rate,
        warmup_steps=20,
        weight_decay=0.0,
        squared_gradient_decay=0.99,
        save_every=20,
        log_every=10,
    )
    train_adapter(checkpoint, trained, latents, texts, settings, options.batch)
    write_folder(options.output, trained, options.rank)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
