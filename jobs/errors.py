"""The exception tree of the server and of the workers.

    FrameditError
    ├── InvalidRequestError (a ValueError)   the client can correct it; names the parameter
    ├── AuthenticationError                  no API key, or an unknown one
    ├── PermissionDeniedError                the API key does not allow this
    ├── KeysInUseError                       API keys cannot be disabled while some are active
    ├── RevokedKeyError                      a revoked API key gets no new secret
    ├── IdempotencyConflictError             one Idempotency-Key with two different requests
    ├── ModelPinnedError                     a pinned model is not unloaded
    ├── NotFoundError
    │   ├── VideoNotFoundError
    │   └── ModelNotFoundError               lists the known models
    ├── VideoUnavailableError                the record exists, its file does not
    │   ├── VideoNotReadyError               the video is not completed
    │   ├── VideoFailedError                 the video has failed
    │   └── VideoGoneError                   the file has expired or was removed
    ├── TryLaterError                        the same request may succeed later; says after how many seconds
    │   ├── RateLimitedError                 a limit of the API key
    │   ├── TooManyQueuedError               too many waiting videos of the same client
    │   ├── OverloadedError                  too many waiting videos of all clients
    │   └── ModerationUnavailableError       prompts cannot be moderated
    ├── InvalidCardError (a ValueError)      a model card that cannot be used
    ├── RedisCertificateError                the certificate of Redis is not accepted
    └── ArtifactStoreError                   a file could not be stored, read or removed
        └── ArtifactFileMissingError         the file does not exist

Further subclasses are where they are raised: in `worker/errors.py`, `worker/output/formats/` and `cli/`. A failure of
Redis is `redis.exceptions.RedisError`, which is not wrapped.
"""

from collections.abc import Iterable, Sequence


class FrameditError(Exception):
    """The root of the exception tree. A message may be shown to a client."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(FrameditError, ValueError):
    """An invalid value. `param` is the name of the field, None for the body as a whole."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class AuthenticationError(FrameditError):
    code = "invalid_api_key"


class PermissionDeniedError(FrameditError):
    code = "insufficient_scope"


class KeysInUseError(FrameditError):
    code = "keys_in_use"

    def __init__(self, key_ids: Sequence[str]) -> None:
        super().__init__(f"these keys are active: {', '.join(key_ids)}; revoke them first (`framedit keys revoke`)")


class RevokedKeyError(FrameditError):
    code = "revoked_key"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"{key_id} is revoked; create another key (`framedit keys create`)")


class IdempotencyConflictError(FrameditError):
    code = "idempotency_key_reused"


class ModelPinnedError(FrameditError):
    code = "model_pinned"

    def __init__(self, model_id: str) -> None:
        super().__init__(f"the model {model_id!r} is pinned: unpin it first (`POST /v1/models/{model_id}/unpin`)")


class NotFoundError(FrameditError):
    code = "not_found"


class VideoNotFoundError(NotFoundError):
    code = "video_not_found"

    def __init__(self, video_id: str) -> None:
        super().__init__(f"there is no video {video_id!r}: it was deleted, or the id is mistyped")


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known))
        hint = (
            f"the models here are: {names}" if names else "no worker has announced one yet: start a worker, ask again"
        )
        super().__init__(f"there is no model {model[:100]!r}; {hint}")


class VideoUnavailableError(FrameditError):
    code = "video_unavailable"


class VideoNotReadyError(VideoUnavailableError):
    code = "video_not_ready"


class VideoFailedError(VideoUnavailableError):
    code = "video_failed"


class VideoGoneError(VideoUnavailableError):
    code = "video_expired"


class TryLaterError(FrameditError):
    """`retry_after_seconds` is an honest estimate, at least 1."""

    code = "try_later"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(f"{message}; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(TryLaterError):
    code = "rate_limit_exceeded"


class TooManyQueuedError(TryLaterError):
    code = "too_many_queued"


class OverloadedError(TryLaterError):
    code = "overloaded"


class ModerationUnavailableError(TryLaterError):
    code = "moderation_unavailable"


class InvalidCardError(FrameditError, ValueError):
    code = "invalid_card"


class RedisCertificateError(FrameditError):
    code = "redis_certificate"


class ArtifactStoreError(FrameditError):
    code = "artifact_store"


class ArtifactFileMissingError(ArtifactStoreError):
    """The store answers, and has no such file."""
