"""`framedit generate`: one video on this machine, without a server."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from jobs.cards import ModelCard
from jobs.records import VideoRequest
from jobs.settings import Settings
from server.body import Fields
from server.validation import CreateVideo, parse, resolve
from worker.device import choose_device, choose_dtype
from worker.errors import StartupError
from worker.folders import find_checkpoints
from worker.generate import make_video
from worker.resident import load_model


def generate(settings: Settings, output: Path, wishes: Mapping[str, object]) -> VideoRequest:
    """Write the video to `output`, whole or not at all; the request as it was understood, with the seed that was used.

    `wishes` are fields of the API's `POST /v1/videos`. Raises `FrameditError` or `ValueError` for what cannot be done.
    """
    body = parse(CreateVideo, Fields({name: value for name, value in wishes.items() if value is not None}, typed=False))
    checkpoints = find_checkpoints(settings.checkpoints)
    card = _choose(list(checkpoints.values()), body)
    request = resolve(body, card)
    if not output.parent.is_dir():
        raise StartupError(f"cannot write {output}: the folder {output.parent} does not exist")
    folder = next(folder for folder, candidate in checkpoints.items() if candidate is card)
    device = choose_device(settings.device)
    model = load_model(folder, card, device, choose_dtype(settings.dtype, device))
    with (
        tempfile.TemporaryDirectory(prefix=".framedit-", dir=output.parent) as temporary,
        tqdm(total=request.num_inference_steps, desc=card.id, unit="step", disable=not sys.stderr.isatty()) as bar,
    ):
        make_video(request, model, Path(temporary) / output.name, lambda *_: _advance(bar))
        (Path(temporary) / output.name).replace(output)
    return request


def _advance(bar: "tqdm[object]") -> None:
    bar.update()


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
