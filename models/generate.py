"""One request from noise to latents, step by step: the plain loop that a batching engine must agree with.

T frames, C H W latent; a request with guidance is two rows of the model's batch, otherwise one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.conditioning import Condition
from models.config import TransformerConfig
from models.sampling.guidance import guide
from models.sampling.noise import NoiseStream
from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.table import LATENT, SamplerTable
from models.sampling.update import gather, start_state, update
from models.transformer import Transformer


@dataclass(frozen=True)
class Generation:
    """What to generate. `condition` and `negative` are one row each.

    With a guidance scale of 1 the negative condition is not used and may be None.
    """

    seed: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    num_frames: int
    condition: Condition
    negative: Condition | None = None

    @property
    def guided(self) -> bool:
        """Whether the model runs twice a step, on the condition and on the negative one."""
        return self.guidance_scale != 1

    def check(self, config: TransformerConfig) -> None:
        """Raise ValueError unless a model of `config` can do this; sampler and steps are `build_table`'s to check."""
        self.condition.check(config, rows=1)
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"got the guidance scale {self.guidance_scale}: it must be a finite number")
        if not self.guided:
            return
        if self.negative is None:
            raise ValueError(
                f"got the guidance scale {self.guidance_scale} without a negative condition: "
                "give one, or the scale 1 for no guidance"
            )
        self.negative.check(config, rows=1)

    def model_condition(self) -> Condition:
        """The condition of each row that the model runs: 2 with guidance, the conditional one first, otherwise 1."""
        if not self.guided or self.negative is None:
            return self.condition
        return Condition.concat([self.condition, self.negative])


def start_noise(config: TransformerConfig, num_frames: int, seed: int) -> torch.Tensor:
    """(1, T, C, H, W) float32 on the CPU: the noise that a request with this seed starts from.

    Raises ValueError for a number of frames that the model does not take.
    """
    return NoiseStream(config, num_frames, seed).draw()


def denoise(
    transformer: Transformer,
    schedule: NoiseSchedule,
    generation: Generation,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Generate the latents (1, T, C, H, W), float32 on the transformer's device.

    `on_step(steps done, steps in all)` is called after each step. Raises ValueError, before any work, for a generation
    that the checkpoint cannot do.
    """
    generation.check(transformer.config)
    table = build_table(generation.sampler, generation.num_inference_steps, schedule)
    noise = NoiseStream(transformer.config, generation.num_frames, generation.seed)
    return run_sampler(transformer, table, generation, noise.draw, on_step)


@torch.no_grad()
def run_sampler(
    transformer: Transformer,
    table: SamplerTable,
    generation: Generation,
    draw_noise: Callable[[], torch.Tensor],
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """The loop of `denoise` with noise from anywhere: `draw_noise()` gives the start noise, then that of each step that
    takes some. Seed, sampler and steps of `generation` are not looked at."""
    weight = next(transformer.parameters())
    state = start_state(table, draw_noise().to(weight.device))
    for step in range(table.num_steps):
        coefficients = gather([table], [step]).to(weight.device)
        noise, variance = _predict(transformer, generation, state[:, LATENT], coefficients.timesteps)
        fresh = draw_noise().to(weight.device) if table.draws_noise[step] else torch.zeros_like(noise)
        state = update(state, noise, variance, fresh, coefficients)
        if on_step is not None:
            on_step(step + 1, table.num_steps)
    return state[:, LATENT]


def _predict(
    transformer: Transformer, generation: Generation, latents: torch.Tensor, timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Guided noise and variance channels, (1, T, C, H, W) float32, whatever the transformer's own dtype."""
    weight = next(transformer.parameters())
    rows = 2 if generation.guided else 1
    outputs = transformer(
        latents.to(weight.dtype).expand(rows, -1, -1, -1, -1),
        timesteps.expand(rows),
        generation.model_condition().to(weight.device, weight.dtype),
    )
    return guide(
        outputs.float(),
        conditional=torch.tensor([0], device=weight.device),
        unconditional=torch.tensor([rows - 1], device=weight.device),
        scales=torch.tensor([generation.guidance_scale], device=weight.device),
        channels=transformer.config.latent_channels,
    )
