"""Asks a service of the operator whether a prompt is allowed."""

import logging

from jobs.errors import InvalidRequestError, ModerationUnavailableError
from jobs.settings import Settings
from jobs.videos.record import VideoRequest
from server.prompts.json_service import JsonService, ServiceError

logger = logging.getLogger(__name__)

_MAX_REASON_CHARACTERS = 500
_RETRY_AFTER_SECONDS = 5


class Moderation:
    """A service that allows or denies prompts."""

    def __init__(self, service: JsonService, fails_open: bool) -> None:
        """With `fails_open`, prompts are allowed while the service gives no answer."""
        self._service = service
        self._fails_open = fails_open

    @classmethod
    def from_settings(cls, settings: Settings) -> "Moderation | None":
        """The service that the settings name, None without one."""
        if settings.moderation_url is None:
            return None
        service = JsonService(settings.moderation_url, settings.moderation_timeout_seconds)
        return cls(service, settings.moderation_failure == "open")

    def check(self, request: VideoRequest, key_id: str | None) -> None:
        """Ask about the texts of a request. `key_id` is that of the caller's API key.

        :raises InvalidRequestError: when the service denies them.
        :raises ModerationUnavailableError: when it gives no answer, and that does not count as allowed.
        """
        texts = {
            "prompt": request.prompt,
            "original_prompt": request.original_prompt,
            "negative_prompt": request.negative_prompt,
        }
        if not any(texts.values()):
            return
        try:
            answer = self._service.post({**texts, "model": request.model, "key_id": key_id})
            allowed = answer.get("allow")
            if not isinstance(allowed, bool):
                raise ServiceError("the answer has no field allow that is true or false")
        except ServiceError as error:
            logger.warning("prompt not moderated, it is %s: %s", "allowed" if self._fails_open else "refused", error)
            if self._fails_open:
                return
            raise ModerationUnavailableError(
                "the moderation service of this server does not answer", _RETRY_AFTER_SECONDS
            ) from None
        if not allowed:
            reason = str(answer.get("reason") or "the moderation service gives no reason")[:_MAX_REASON_CHARACTERS]
            raise InvalidRequestError(f"the prompt was refused: {reason}", "prompt", "prompt_refused")

    def close(self) -> None:
        self._service.close()
