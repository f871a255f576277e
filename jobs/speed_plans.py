"""Speed plans: the calibrated ways to compute fewer rows of a video, and the plan of one request.

`framedit calibrate` writes them into the checkpoint folder, and the model card announces them. A plan is a text with
the rows of a window at each denoising step, 2, 1 or 0 (`models/sampling/speed_plan.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Speed = Literal["exact", "balanced", "fast"]
SPEEDS: tuple[Speed, ...] = get_args(Speed)

SPEED_PLANS_FILE = "speed_plans.json"
# Steps at the start that every plan computes: before them there are too few predictions to extrapolate from.
FIRST_STEPS = 3


class SpeedPlan(BaseModel):
    """A plan, and its measured quality against the exact result, at the number of steps of its calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed: Literal["balanced", "fast"]
    sampler: str
    rows: str = Field(pattern=r"^2[12]{2}[012]*[12]$", description="rows of a guided request at each step")
    min_steps: int = Field(ge=2, description="requests with fewer steps cannot use the plan")
    guidance_scale: float = Field(description="of the calibration")
    rows_share: float = Field(gt=0, le=1, description="computed rows, as a share of all")
    psnr_db: float = Field(description="mean over the videos of the calibration")
    ssim: float = Field(description="mean over the videos of the calibration")
    num_videos: int = Field(ge=1)
    rival_steps: int = Field(ge=1, description="the most exact steps within the rows of the speed")
    rival_psnr_db: float = Field(description="of so many exact steps")

    def rows_of(self, num_steps: int) -> str:
        """The rows of `num_steps` steps: the first steps as they are, the others as dense in each part of the schedule.

        The share of computed steps is at most that of the calibration.
        """
        first, steps = FIRST_STEPS, len(self.rows)
        if num_steps <= first:
            return "2" * num_steps
        computed = [step for step in range(first, steps) if self.rows[step] != "0"]
        count = max(1, (len(computed) + first) * num_steps // steps - first)
        digits = [*self.rows[:first], *"0" * (num_steps - first)]
        for rank in range(count):
            place = (len(computed) - 1) * ((rank + 1) / count if count == 1 else rank / (count - 1))
            step = first + round((_between(computed, place) - first) * (num_steps - 1 - first) / (steps - 1 - first))
            digits[step] = max(digits[step], self.rows[computed[round(place)]])
        return "".join(digits)


def _between(values: Sequence[int], place: float) -> float:
    """The value at a fractional index."""
    below = max(0, min(int(place), len(values) - 2))
    if len(values) == 1:
        return values[0]
    return values[below] + (place - below) * (values[below + 1] - values[below])


_PLANS = TypeAdapter(list[SpeedPlan])


def read_speed_plans(folder: Path) -> list[SpeedPlan]:
    """Return the plans of a checkpoint folder. Raises `OSError` and `ValidationError` for a file that is unusable."""
    path = folder / SPEED_PLANS_FILE
    return _PLANS.validate_json(path.read_bytes()) if path.exists() else []


def write_speed_plans(folder: Path, plans: Sequence[SpeedPlan]) -> None:
    """Write the plans of a checkpoint folder, in place of its earlier ones."""
    temporary = folder / f".{SPEED_PLANS_FILE}"
    temporary.write_bytes(_PLANS.dump_json(list(plans), indent=2) + b"\n")
    temporary.replace(folder / SPEED_PLANS_FILE)


def find_plan(plans: Sequence[SpeedPlan], speed: Speed, sampler: str) -> SpeedPlan | None:
    return next((plan for plan in plans if (plan.speed, plan.sampler) == (speed, sampler)), None)


def explain_refusal(model: str, plans: Sequence[SpeedPlan], speed: Speed, sampler: str, num_steps: int) -> str | None:
    """Return the reason why a model does not offer a speed, with what it allows. None when it does."""
    if speed == "exact":
        return None
    plan = find_plan(plans, speed, sampler)
    if plan is None:
        offered = [each for each in SPEEDS if each == "exact" or find_plan(plans, each, sampler)]
        samplers = [each.sampler for each in plans if each.speed == speed]
        with_others = f"; it offers {speed!r} with the samplers {', '.join(samplers)}" if samplers else ""
        return (
            f"{model} allows {', '.join(offered)} with the sampler {sampler!r}{with_others}; an operator adds speeds "
            f"with `framedit calibrate {model}`"
        )
    if num_steps < plan.min_steps:
        return f"that needs at least {plan.min_steps} num_inference_steps, and this request has {num_steps}"
    return None


def request_plan(plan: SpeedPlan, num_inference_steps: int, num_steps: int, *, is_guided: bool) -> str:
    """Return the rows of the last `num_steps` steps of a request, of which the first is computed in full.

    An edit does only the last steps. Without guidance, a step has one row or none.
    """
    rows = "2" + plan.rows_of(num_inference_steps)[num_inference_steps - num_steps :][1:]
    return rows if is_guided else rows.replace("2", "1")
