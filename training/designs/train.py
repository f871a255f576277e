"""Training of the four designs side by side: every step draws one batch and trains each design on it.

So all have seen the same samples, with the same noise, at every moment, and a stop by the clock leaves them equal.

Shape legend: B batch, T frames, C latent channels, h latent side.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.blocks import Block
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer, count_parameters
from training.designs.designs import DESIGNS
from training.designs.videos import FastVideos
from training.loop import autocast, save_atomically
from training.stages.conditions import DROPOUT, ConditionOf
from training.stages.diffusion import Float32Linear, attention, draw_timesteps
from training.stages.initialize import initialize
from training.stages.losses import diffusion_losses, terms_of

STATE = "state.pt"


@dataclass(frozen=True)
class TrainingSettings:
    """`out` keeps the state and the logs. `seconds` is the time of this call; with `last`, the learning rate falls to
    a fiftieth over it, otherwise it stays."""

    out: Path
    seconds: float
    last: bool
    batch: int = 192
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    max_gradient_norm: float = 1.0
    log_every: int = 20
    save_seconds: float = 60.0


class Trainee:
    """One design in training, with its optimizer."""

    def __init__(self, name: str, device: torch.device, compiled: bool) -> None:
        self.name = name
        torch.manual_seed(0)
        self.model = Transformer(DESIGNS[name].config)
        initialize(self.model)
        for end in (self.model.patch_embedding, self.model.output):
            end.__class__ = Float32Linear
        self.model.to(device).train()
        if compiled:
            # Blocks of one kind share their compiled code, which takes far less time than compiling whole models.
            for block in self.model.modules():
                if isinstance(block, Block):
                    block.compile(dynamic=False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda"
        )

    def step(self, losses: dict[str, Tensor], learning_rate: float, max_gradient_norm: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), max_gradient_norm)
        self.optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        """The weights in half precision, on the CPU."""
        return {name: tensor.half().cpu().contiguous() for name, tensor in self.model.state_dict().items()}


class Training:
    """The four designs, the step that they have reached, and the seconds that it took."""

    def __init__(self, settings: TrainingSettings, device: torch.device, compiled: bool) -> None:
        self.settings = settings
        self.device = device
        if compiled:
            torch._dynamo.config.recompile_limit = 64
        self.trainees = [Trainee(name, device, compiled) for name in DESIGNS]
        self.step, self.seconds, self.warm_from = 0, 0.0, 0
        settings.out.mkdir(parents=True, exist_ok=True)
        if (settings.out / STATE).exists():
            self._resume()
        for trainee in self.trainees:
            print(f"{trainee.name}: {count_parameters(trainee.model):,} parameters, from step {self.step}", flush=True)

    def run(self, videos: FastVideos, condition_of: ConditionOf) -> None:
        """Train until the seconds are over."""
        schedule = NoiseSchedule()
        terms = terms_of(schedule, self.device)
        settings = self.settings
        for progress in self._clock():
            torch.manual_seed(self.step)
            indices = torch.randint(len(videos), (settings.batch,), device=self.device)
            timesteps = draw_timesteps(settings.batch, schedule.num_train_timesteps, self.device)
            clean = videos.latents[indices].float()
            noise = torch.randn_like(clean)
            condition = condition_of(indices, torch.rand(settings.batch, device=self.device) < DROPOUT)
            at = terms.at(timesteps)
            noisy = at.signal * clean + at.noise * noise
            rate = self._learning_rate(progress)
            entries = {}
            for trainee in self.trainees:
                with autocast(self.device), attention(trainee.model.config, self.device):
                    output = trainee.model(noisy, timesteps, condition)
                losses = diffusion_losses(output, clean, noise, terms, timesteps)
                trainee.step(losses, rate, settings.max_gradient_norm)
                entries[trainee.name] = {name: loss.detach() for name, loss in losses.items()}
            self.step += 1
            if self.step % settings.log_every == 0:
                self._log(entries, rate)

    def _clock(self) -> Iterator[float]:
        """How much of this call's time is over, from 0 to 1, once a step. Saves every minute and at the end."""
        stop = time.monotonic() + self.settings.seconds
        yield 0.0
        _synchronize(self.device)
        # The first step, which compiles, is over.
        begun = saved = now = time.monotonic()
        before = self.seconds
        while now < stop:
            yield (now - begun) / (stop - begun)
            if self.step % 5 == 0:  # the host must not run ahead of the device, past the end
                _synchronize(self.device)
            now = time.monotonic()
            self.seconds = before + now - begun
            if now - saved >= self.settings.save_seconds:
                self.save()
                saved = now
        self.save()

    def _learning_rate(self, progress: float) -> float:
        warmup = min(1.0, (self.step - self.warm_from + 1) / self.settings.warmup_steps)
        decay = 0.5 + 0.5 * math.cos(math.pi * progress) if self.settings.last else 1.0
        return self.settings.learning_rate * warmup * (0.02 + 0.98 * decay)

    def _log(self, entries: dict[str, dict[str, Tensor]], rate: float) -> None:
        for name, losses in entries.items():
            values = {key: round(float(value), 6) for key, value in losses.items()}
            line = {"step": self.step, "samples": self.step * self.settings.batch, "learning_rate": rate, **values}
            with (self.settings.out / f"{name}.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"{name}: the loss is {values['loss']} at step {self.step}")
        if self.step % (5 * self.settings.log_every) == 0:
            noise = " ".join(f"{name} {float(losses['velocity']):.4f}" for name, losses in entries.items())
            print(f"{self.seconds:5.0f} s, step {self.step}, velocity error {noise}", flush=True)

    def save(self) -> None:
        """Write the whole state, from which training goes on exactly."""
        states = {
            each.name: {"model": each.model.state_dict(), "optimizer": each.optimizer.state_dict()}
            for each in self.trainees
        }
        save_atomically({"step": self.step, "seconds": self.seconds, "states": states}, self.settings.out / STATE)

    def export(self, folder: Path) -> None:
        """Write the weights alone, a small file for each design, from which `start_from` goes on."""
        folder.mkdir(parents=True, exist_ok=True)
        for trainee in self.trainees:
            metadata = {"step": str(self.step), "seconds": str(self.seconds)}
            save_file(trainee.weights(), folder / f"{trainee.name}.safetensors", metadata)

    def start_from(self, folder: Path) -> None:
        """Go on from exported weights: the optimizer begins anew, with a warm-up."""
        for trainee in self.trainees:
            with safe_open(folder / f"{trainee.name}.safetensors", framework="pt") as file:
                trainee.model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
                reached = file.metadata()
            self.step = self.warm_from = int(reached["step"])
            self.seconds = float(reached["seconds"])

    def _resume(self) -> None:
        state = torch.load(self.settings.out / STATE, weights_only=True, map_location="cpu")
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        for trainee in self.trainees:
            trainee.model.load_state_dict(state["states"][trainee.name]["model"])
            trainee.optimizer.load_state_dict(state["states"][trainee.name]["optimizer"])
            self._cut_log(self.settings.out / f"{trainee.name}.jsonl")

    def _cut_log(self, log: Path) -> None:
        """Drop what was logged after the state was saved: those steps are done again."""
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= self.step))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
