"""Finds and measures the speed plans of a model.

The exact results of the examples are made once. Each candidate plan is then run on the same examples. The best one of
each speed is kept if it is closer to the exact results than as many rows spent on fewer exact steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from jobs.speed_plans import SpeedPlan
from models.generate import Generation
from worker.calibration.quality import psnr_db, ssim
from worker.calibration.search import find_candidates
from worker.engine.engine import Denoised, Engine, EngineSettings, Failed, Progress
from worker.engine.scheduler import Scheduler
from worker.loading.model_cache import LoadedModel, ModelCache


@dataclass(frozen=True)
class Budget:
    """The most rows of a speed, as a share of all, and the least PSNR."""

    speed: Literal["balanced", "fast"]
    rows_share: float
    min_psnr_db: float


BUDGETS = (Budget("balanced", 0.62, 30.0), Budget("fast", 0.45, 27.0))


@dataclass(frozen=True)
class Measurement:
    """The quality of one way to save rows, the mean over the examples."""

    family: str
    rows: str
    psnr_db: float
    ssim: float

    @property
    def rows_share(self) -> float:
        return sum(map(int, self.rows)) / (2 * len(self.rows))


class Calibration:
    """Runs and compares the examples of one model, with one sampler and number of steps.

    Attributes:
        measurements: What was measured, by speed. The first of each is the rival: fewer exact steps.
    """

    def __init__(self, model: LoadedModel, examples: Sequence[Generation], report: Callable[[str], None]) -> None:
        """Raises ValueError for examples without guidance, which have one row a step."""
        if not all(example.guided for example in examples):
            raise ValueError(
                "got examples without guidance: calibrate with a guidance scale at which the model uses it"
            )
        self._model = model
        self._examples = examples
        self._report = report
        self.measurements: dict[str, list[Measurement]] = {}

    def run(self) -> list[SpeedPlan]:
        """Find the plans of all speeds. A speed that no candidate earns is left out."""
        example = self._examples[0]
        self._report(f"{len(self._examples)} exact videos of {example.num_inference_steps} steps of {example.sampler}")
        exact, predictions = self._generate(self._examples)
        reference = [self._decode(latents) for latents in exact]
        plans = [self._find(budget, predictions, reference) for budget in BUDGETS]
        return [plan for plan in plans if plan is not None]

    def _find(self, budget: Budget, predictions: Tensor, reference: list[Tensor]) -> SpeedPlan | None:
        example = self._examples[0]
        steps = example.num_inference_steps
        max_rows = int(budget.rows_share * 2 * steps)
        rival = self._measure("fewer steps", "2" * (max_rows // 2), reference)
        found = [
            self._measure(family, rows, reference)
            for family, rows in find_candidates(example.table(self._model.checkpoint.schedule), predictions, max_rows)
        ]
        self.measurements[budget.speed] = [rival, *found]
        best = max(found, key=lambda measurement: measurement.psnr_db, default=rival)
        if best.psnr_db <= max(rival.psnr_db, budget.min_psnr_db):
            self._report(f"{budget.speed}: no plan is better than fewer steps and has {budget.min_psnr_db:g} dB")
            return None
        self._report(f"{budget.speed}: {best.family}")
        return SpeedPlan(
            speed=budget.speed,
            sampler=example.sampler,
            rows=best.rows,
            min_steps=steps,  # with fewer, steps lie further apart, and extrapolation is worse than measured
            guidance_scale=example.guidance_scale,
            rows_share=round(best.rows_share, 4),
            psnr_db=round(best.psnr_db, 2),
            ssim=round(best.ssim, 4),
            num_videos=len(self._examples),
            rival_steps=len(rival.rows),
            rival_psnr_db=round(rival.psnr_db, 2),
        )

    def _measure(self, family: str, rows: str, reference: list[Tensor]) -> Measurement:
        plan = rows if len(rows) == self._examples[0].num_inference_steps else None
        generations = [replace(each, num_inference_steps=len(rows), plan=plan) for each in self._examples]
        frames = [self._decode(latents) for latents in self._generate(generations)[0]]
        pairs = list(zip(frames, reference, strict=True))
        measurement = Measurement(
            family, rows, fmean(psnr_db(*pair) for pair in pairs), fmean(ssim(*pair) for pair in pairs)
        )
        steps = self._examples[0].num_inference_steps
        self._report(
            f"  {sum(map(int, rows)) / (2 * steps):.2f} of the rows, {measurement.psnr_db:.1f} dB, "
            f"SSIM {measurement.ssim:.4f}: {family}"
        )
        return measurement

    def _generate(self, generations: Sequence[Generation]) -> tuple[list[Tensor], Tensor]:
        """The latents of `generations`, and the clean predictions (B, N - 1, T, C, H, W) of all steps but the last."""
        model = self._model
        settings = EngineSettings(max_slots=len(generations), max_in_flight_steps=1)
        models = ModelCache({model.card.id: model.card}, lambda _: model)
        models.load(model.card.id)
        engine = Engine(models, Scheduler(), settings)
        for number, generation in enumerate(generations):
            engine.admit(str(number), model.card.id, generation)
        latents: dict[str, Tensor] = {}
        predictions: dict[str, list[Tensor]] = {request_id: [] for request_id in engine.request_ids}
        while engine.request_ids:
            for event in engine.step():
                match event:
                    case Progress(request_id, step, steps) if step < steps:
                        prediction = engine.preview(request_id)
                        assert prediction is not None, "a step is done"
                        predictions[request_id].append(prediction[0].cpu())
                    case Denoised(request_id, result):
                        latents[request_id] = result
                    case Failed(_, error):
                        raise error
        order = [str(number) for number in range(len(generations))]
        traced = [torch.stack(predictions[each]) for each in order if predictions[each]]
        return [latents[each] for each in order], torch.stack(traced) if traced else torch.empty(0)

    def _decode(self, latents: Tensor) -> Tensor:
        return self._model.checkpoint.vae.decode(latents)
