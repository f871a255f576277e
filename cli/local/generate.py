"""Generation of one video on this machine, without a server."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.client.source import Source
from cli.result_file import with_suffix_of
from jobs.admission.cost import with_rows
from jobs.cards import ModelCard
from jobs.settings import Settings
from jobs.videos.record import VideoRequest
from server.content.file_response import MEDIA_TYPES
from server.creation.model_choice import choose_fitting
from server.references.requests import (
    ChooseModel,
    ReferencedRequest,
    resolve_create,
    resolve_edit,
    resolve_extension,
)
from server.references.source import UploadedFile
from server.request_body import Fields
from server.request_fields import parse
from server.wire import CreateVideo, EditVideo, ExtendVideo
from worker.errors import StartupError
from worker.loading.checkpoint_discovery import find_checkpoints


@dataclass(frozen=True)
class Plan:
    """The request with the frames of its reference, the checkpoint that generates it, and the file to write."""

    folder: Path
    card: ModelCard
    request: VideoRequest
    reference: NDArray[np.uint8] | None
    output: Path


def plan_generation(
    settings: Settings, output: Path, fields: Mapping[str, object], source: Source | None = None
) -> Plan:
    """Validate `fields`, those of the API's route for `source`, and choose a checkpoint.

    The output gets the suffix of its format: a video of PNGs .zip, an image .png.

    Raises `FrameditError` for an invalid request or output, before a model is loaded.
    """
    checkpoints = find_checkpoints(settings.checkpoints)
    if fields.get("adapters"):
        checkpoints = _with_adapters(checkpoints, settings)
    choose = partial(_choose, list(checkpoints.values()), settings)
    given = {name: value for name, value in fields.items() if value is not None}
    resolved = _resolve(given, source, choose, settings)
    card, request = resolved.card, with_rows(resolved.request, resolved.card)
    if output.is_dir():
        raise StartupError(f"cannot write {output}: it is a folder; choose a file in it")
    if not output.parent.is_dir():
        raise StartupError(f"cannot write {output}: the folder {output.parent} does not exist")
    folder = next(folder for folder, candidate in checkpoints.items() if candidate is card)
    frames = resolved.frames
    reference = None
    if frames is not None:
        reference = np.frombuffer(frames.rgb, np.uint8).reshape(frames.num_frames, frames.height, frames.width, 3)
    return Plan(folder, card, request, reference, with_suffix_of(output, MEDIA_TYPES[request.result_kind]))


def _resolve(
    given: dict[str, Any], source: Source | None, choose: ChooseModel, settings: Settings
) -> ReferencedRequest:
    """Complete the fields as the API's route for `source` does."""
    if source is None:
        return resolve_create(parse(CreateVideo, Fields(given, typed=False)), None, choose, settings)
    video = UploadedFile(source.field, Path(source.file_or_id).read_bytes())
    fields = Fields({**given, source.field: {}}, typed=False)
    match source.path:
        case "/v1/videos/edits":
            return resolve_edit(parse(EditVideo, fields), video, choose, settings)
        case "/v1/videos/extensions":
            return resolve_extension(parse(ExtendVideo, fields), video, choose, settings)
    return resolve_create(parse(CreateVideo, fields), video, choose, settings)


def write_video(plan: Plan, settings: Settings) -> None:
    """Write the video, complete or not at all, with a progress bar on a terminal.

    Raises `FrameditError` or `ValueError` for a request that the checkpoint or the device does not support.
    """
    from tqdm import tqdm

    from worker.device import choose_device, choose_dtype, choose_text_place
    from worker.generate import make_video
    from worker.loading.adapter_cache import AdapterCache
    from worker.loading.model_cache import load_model
    from worker.output.provenance import provenance_of

    provenance = provenance_of(settings)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    text_place = choose_text_place(settings.text_encoder_device, device)
    model = load_model(plan.folder, plan.card, device, dtype, fast=settings.fast == "auto", text_place=text_place)
    steps = plan.request.num_steps
    with (
        tempfile.TemporaryDirectory(prefix=".framedit-", dir=plan.output.parent) as temporary,
        tqdm(total=steps, desc=plan.card.id, unit="step", disable=not sys.stderr.isatty()) as bar,
    ):
        path = Path(temporary) / plan.output.name
        adapters = AdapterCache(settings.adapters, settings.max_adapter_bytes).load(plan.request.adapters, model)
        make_video(
            plan.request,
            model,
            path,
            lambda *_: bar.update() and None,
            reference=plan.reference,
            provenance=provenance,
            adapters=adapters,
        )
        path.replace(plan.output)


def _with_adapters(checkpoints: Mapping[Path, ModelCard], settings: Settings) -> dict[Path, ModelCard]:
    """The cards with the adapters that the adapters folder holds for them."""
    from worker.loading.adapter_watch import AdapterWatch

    watch = AdapterWatch(settings.adapters, settings.checkpoints, settings.max_adapter_bytes)
    watch.poll([card.id for card in checkpoints.values()], is_start=True)
    return {
        folder: card.model_copy(update={"adapters": watch.served.of(card.id)}) for folder, card in checkpoints.items()
    }


def _choose(cards: Sequence[ModelCard], settings: Settings, body: CreateVideo) -> ModelCard:
    """Return the requested model, by default the one that the API would choose."""
    if body.model is None:
        return choose_fitting(cards, body, settings.default_model)
    for card in cards:
        if card.id == body.model:
            return card
    raise StartupError(f"there is no model {body.model!r}; available are {', '.join(card.id for card in cards)}")
