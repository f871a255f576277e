"""The review of a request's prompt: enhanced where the client asks for it, then moderated."""

from jobs.cards import ModelCard
from jobs.errors import InvalidRequestError
from jobs.videos.record import VideoRequest
from server.prompts.enhancer import Enhancer
from server.prompts.moderation import Moderation


def review_prompt(
    request: VideoRequest,
    card: ModelCard,
    enhance: bool,
    key_id: str | None,
    enhancer: Enhancer | None,
    moderation: Moderation | None,
) -> VideoRequest:
    """Return the request with the prompt that the model will see. Moderation sees it as well as the client's.

    :raises InvalidRequestError: for a prompt that cannot be enhanced, or is denied.
    :raises ModerationUnavailableError: when moderation does not answer.
    """
    if enhance:
        request = _enhanced(request, card, enhancer)
    if moderation is not None:
        moderation.check(request, key_id)
    return request


def _enhanced(request: VideoRequest, card: ModelCard, enhancer: Enhancer | None) -> VideoRequest:
    if request.prompt is None:
        raise InvalidRequestError(f"enhance_prompt is True; {card.id} takes no prompt; leave it out", "enhance_prompt")
    if enhancer is None:
        raise InvalidRequestError(
            "enhance_prompt is True; this server has no prompt enhancer; leave it out", "enhance_prompt"
        )
    prompt = enhancer.enhance(request.prompt, card.max_prompt_characters)
    if prompt is None:
        return request.model_copy(update={"prompt_enhancement": "failed"})
    changes = {"prompt": prompt, "original_prompt": request.prompt, "prompt_enhancement": "enhanced"}
    return request.model_copy(update=changes)
