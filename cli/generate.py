"""`framedit generate`: one video on this machine, without a server."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.cards import ModelCard
from jobs.records import VideoRequest
from jobs.settings import Settings
from server.body import Fields
from server.validation import CreateVideo, parse, resolve
from worker.errors import StartupError
from worker.folders import find_checkpoints


@dataclass(frozen=True)
class Plan:
    """What to make, of which checkpoint, into which file."""

    folder: Path
    card: ModelCard
    request: VideoRequest
    output: Path


def plan(settings: Settings, output: Path, wishes: Mapping[str, object]) -> Plan:
    """What `wishes`, which are fields of the API's `POST /v1/videos`, come to.

    Raises `FrameditError` for what cannot be done, before anything heavy is loaded.
    """
    body = parse(CreateVideo, Fields({name: value for name, value in wishes.items() if value is not None}, typed=False))
    checkpoints = find_checkpoints(settings.checkpoints)
    card = _choose(list(checkpoints.values()), body)
    request = resolve(body, card)
    if output.is_dir():
        raise StartupError(f"cannot write {output}: it is a folder; name a file in it")
    if not output.parent.is_dir():
        raise StartupError(f"cannot write {output}: the folder {output.parent} does not exist")
    folder = next(folder for folder, candidate in checkpoints.items() if candidate is card)
    return Plan(folder, card, request, output)


def make(wanted: Plan, settings: Settings) -> None:
    """Write the video, whole or not at all, with a progress bar on a terminal.

    Raises `FrameditError` or `ValueError` for what the checkpoint or the device cannot do.
    """
    from tqdm import tqdm

    from worker.device import choose_device, choose_dtype
    from worker.generate import make_video
    from worker.resident import load_model

    device = choose_device(settings.device)
    model = load_model(wanted.folder, wanted.card, device, choose_dtype(settings.dtype, device))
    steps = wanted.request.num_inference_steps
    with (
        tempfile.TemporaryDirectory(prefix=".framedit-", dir=wanted.output.parent) as temporary,
        tqdm(total=steps, desc=wanted.card.id, unit="step", disable=not sys.stderr.isatty()) as bar,
    ):
        path = Path(temporary) / wanted.output.name
        make_video(wanted.request, model, path, lambda *_: bar.update() and None)
        path.replace(wanted.output)


def _choose(cards: list[ModelCard], body: CreateVideo) -> ModelCard:
    """The model asked for, otherwise the first that takes what was given."""
    if body.model is None:
        kind = "text" if body.prompt else "class" if body.class_label is not None else "none"
        cards = [card for card in cards if card.conditioning == kind] or cards
        return cards[0]
    for card in cards:
        if card.id == body.model:
            return card
    raise StartupError(f"there is no model {body.model!r}; there are {', '.join(card.id for card in cards)}")
