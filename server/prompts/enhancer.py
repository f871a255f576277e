"""Rewrites prompts with a language model, through any OpenAI-compatible API."""

import logging

from jobs.settings import Settings
from server.prompts.json_service import JsonService, ServiceError

logger = logging.getLogger(__name__)

_INSTRUCTIONS = (
    "Rewrite the user's text as a prompt for a model that generates a short video. Keep its subject and every detail. "
    "Add what the scene looks like, the motion, the camera and the light. Write one paragraph in the user's language, "
    "in at most {characters} characters. Answer the prompt only."
)


class Enhancer:
    """A language model that writes longer prompts."""

    def __init__(self, service: JsonService, model: str) -> None:
        self._service = service
        self._model = model

    @classmethod
    def from_settings(cls, settings: Settings) -> "Enhancer | None":
        """The enhancer that the settings name, None without one.

        :raises ValueError: when its model is missing.
        """
        if settings.enhancer_url is None:
            return None
        if settings.enhancer_model is None:
            raise ValueError("FRAMEDIT_ENHANCER_MODEL is not set: FRAMEDIT_ENHANCER_URL needs the name of a model")
        key = settings.enhancer_api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else None
        url = settings.enhancer_url.rstrip("/") + "/chat/completions"
        return cls(JsonService(url, settings.enhancer_timeout_seconds, headers), settings.enhancer_model)

    def enhance(self, prompt: str, max_characters: int) -> str | None:
        """Return a better prompt of at most `max_characters`, None when the model gives none."""
        instructions = _INSTRUCTIONS.format(characters=max_characters)
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}]
        try:
            answer = self._service.post({"model": self._model, "messages": messages})
            enhanced = answer["choices"][0]["message"]["content"].strip()
        except ServiceError as error:
            logger.warning("prompt not enhanced: %s", error)
            return None
        except (LookupError, TypeError, AttributeError):
            logger.warning("prompt not enhanced: the answer is not a chat completion")
            return None
        if not 0 < len(enhanced) <= max_characters:
            logger.warning("prompt not enhanced: the answer has %d characters of %d", len(enhanced), max_characters)
            return None
        return str(enhanced)

    def close(self) -> None:
        self._service.close()
