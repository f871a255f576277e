"""The loop that every training stage shares: AdamW with warm-up and cosine decay, a log of losses, and a state file
from which an interrupted stage goes on. Batches are drawn from the step's number, so going on changes nothing."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

LossOfStep = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class LoopSettings:
    """`out` is the stage's folder: `state.pt` and `log.jsonl` are kept there. With `seconds`, the training also ends
    after that time."""

    out: Path
    steps: int
    learning_rate: float
    seconds: float = math.inf
    warmup_steps: int = 100
    weight_decay: float = 0.01
    squared_gradient_decay: float = 0.999
    max_gradient_norm: float = 1.0
    save_every: int = 500
    log_every: int = 20


def train(settings: LoopSettings, module: nn.Module, loss_of_step: LossOfStep) -> None:
    """Train `module` until its steps or its time are over, continuing from `out/state.pt` where there is one.

    `loss_of_step(step)` returns named scalars; the one called "loss" is minimised, all are logged.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.squared_gradient_decay),
        weight_decay=settings.weight_decay,
    )
    step, seconds = _resume(settings, module, optimizer)
    started = time.monotonic() - seconds
    progress = tqdm(initial=step, total=settings.steps, desc=settings.out.name)
    done = _share_done(settings, step, seconds)
    while done < 1:
        rate = learning_rate_at(settings, step, done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), settings.max_gradient_norm)
        optimizer.step()
        step, seconds = step + 1, time.monotonic() - started
        done = _share_done(settings, step, seconds)
        progress.update()
        if step % settings.log_every == 0 or done >= 1:
            values = {name: round(float(value.detach()), 6) for name, value in losses.items()}
            _log(settings, {"step": step, "learning_rate": rate, **values})
            progress.set_postfix(loss=values["loss"])
        if step % settings.save_every == 0 or done >= 1:
            states = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            save_atomically({"step": step, "seconds": seconds, **states}, _state(settings))
    progress.close()


def learning_rate_at(settings: LoopSettings, step: int, done: float) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth. `done` is the share of the training that is over."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay = 0.5 + 0.5 * math.cos(math.pi * done)
    return settings.learning_rate * warmup * (0.02 + 0.98 * decay)


def _share_done(settings: LoopSettings, step: int, seconds: float) -> float:
    if step >= settings.steps or seconds >= settings.seconds:
        return 1.0
    return max(step / settings.steps, seconds / settings.seconds)


def save_atomically(state: dict[str, object], path: Path) -> None:
    """A reader sees the old file or the new one, never half of one."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where the hardware is made for it; float32 on the CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def _resume(settings: LoopSettings, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Return the steps and the seconds that are over."""
    path = _state(settings)
    if not path.exists():
        (settings.out / "log.jsonl").unlink(missing_ok=True)
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    _cut_log(settings, state["step"])
    return state["step"], state.get("seconds", 0.0)


def _cut_log(settings: LoopSettings, last_step: int) -> None:
    """Drop what was logged after the state was saved: those steps are about to be done again."""
    path = settings.out / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= last_step))


def _log(settings: LoopSettings, entry: dict[str, float]) -> None:
    with (settings.out / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")


def _state(settings: LoopSettings) -> Path:
    return settings.out / "state.pt"
