"""Chooses the model of a request."""

from collections.abc import Sequence

from redis import Redis

from jobs.cards import ModelCard, find_card, known_models
from jobs.errors import InvalidRequestError, ModelNotFoundError
from server.validation import resolve
from server.wire import CreateVideo


def find_model(redis: Redis, model: str) -> ModelCard:
    """The card of a model.

    :raises ModelNotFoundError: when no worker ever announced it.
    """
    card = find_card(redis, model)
    if card is None:
        raise ModelNotFoundError(model, known_models(redis))
    return card


def choose_model(redis: Redis, body: CreateVideo, default: str | None) -> ModelCard:
    """The model that a request names. Without a name: the only model that its fields fit, or else the default.

    :raises ModelNotFoundError: when no worker ever announced the named model.
    :raises InvalidRequestError: when the request names no model and several fit, or none.
    """
    if body.model is not None:
        return find_model(redis, body.model)
    known = [card for card, _ in known_models(redis).values()]
    if not known:
        raise InvalidRequestError("model is missing, and no worker has announced a model yet; start a worker", "model")
    return choose_fitting(known, body, default)


def choose_fitting(cards: Sequence[ModelCard], body: CreateVideo, default: str | None) -> ModelCard:
    """The only one of `cards` that the fields of a request without a model fit, or else the default.

    :raises InvalidRequestError: when several fit, or none.
    """
    candidates = _fitting(cards, body)
    if len(candidates) == 1:
        return candidates[0]
    for card in candidates:
        if card.id == default:
            return card
    names = ", ".join(card.id for card in candidates)
    raise InvalidRequestError(f"model is missing, and the other fields do not decide it; name one of {names}", "model")


def _fitting(cards: Sequence[ModelCard], body: CreateVideo) -> Sequence[ModelCard]:
    """The models that the fields fit. A field that fits no model leaves all that take this prompt or class label."""
    conditioning = "text" if body.prompt else "class" if body.class_label is not None else "none"
    candidates = [card for card in cards if card.conditioning == conditioning] or cards
    return [card for card in candidates if _fits(card, body)] or candidates


def _fits(card: ModelCard, body: CreateVideo) -> bool:
    try:
        resolve(body, card)
    except InvalidRequestError:
        return False
    return True
