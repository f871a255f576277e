"""Calibration of one checkpoint folder on this machine."""

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from jobs.cards import ModelCard
from jobs.settings import Settings
from jobs.speed_plans import SpeedPlan, read_speed_plans, write_speed_plans
from server.request_body import Fields
from server.request_fields import parse
from server.validation import resolve
from server.wire import CreateVideo
from worker.errors import StartupError
from worker.loading.checkpoint_discovery import find_checkpoints


def calibrate_model(
    settings: Settings,
    model: str,
    sampler: str | None,
    steps: int,
    num_videos: int,
    num_frames: int | None,
    report: Callable[[str], None],
) -> list[SpeedPlan]:
    """Find the plans of a model for one sampler, and write them in place of its earlier ones. Returns the new plans.

    Raises:
        FrameditError: For an unknown model, and for values that it does not allow.
        ValueError: For a model that runs without guidance.
    """
    found = {card.id: (folder, card) for folder, card in find_checkpoints(settings.checkpoints).items()}
    if model not in found:
        raise StartupError(f"there is no model {model!r}; available are {', '.join(found)}")
    folder, card = found[model]
    fields = {"model": model, "sampler": sampler, "num_inference_steps": steps, "num_frames": num_frames}
    bodies = [
        {name: value for name, value in (fields | example).items() if value is not None}
        for example in islice(cycle(examples(card)), num_videos)
    ]
    requests = [
        resolve(parse(CreateVideo, Fields(body | {"seed": seed}, typed=True)), card) for seed, body in enumerate(bodies)
    ]

    from worker.calibration.calibrate import Calibration
    from worker.device import choose_device, choose_dtype, choose_text_place
    from worker.generate import to_generation
    from worker.loading.model_cache import load_model

    device = choose_device(settings.device)
    loaded = load_model(
        folder,
        card,
        device,
        choose_dtype(settings.dtype, device),
        fast=settings.fast == "auto",
        text_place=choose_text_place(settings.text_encoder_device, device),
    )
    plans = Calibration(loaded, [to_generation(request, loaded) for request in requests], report).run()
    kept = [plan for plan in read_speed_plans(folder) if plan.sampler != requests[0].sampler]
    write_speed_plans(folder, [*kept, *plans])
    return plans


def examples(card: ModelCard) -> list[dict[str, Any]]:
    """The fields of the card's examples: prompts, classes in steps that visit all kinds, or nothing."""
    if card.conditioning == "text":
        return [{"prompt": prompt} for prompt in card.examples] or [{"prompt": card.id}]
    if card.conditioning == "class":
        names = card.class_names or []
        stride = next(step for step in (5, 3, 7, 1) if step == 1 or len(names) % step)
        return [{"class_label": stride * index % len(names)} for index in range(len(names))]
    return [{}]
