"""The exception tree of the server and of the workers.

    FrameditError
    ├── InvalidRequestError (a ValueError)   the client can put it right: names the parameter
    ├── AuthenticationError                  no API key, or none that is known
    ├── PermissionDeniedError                an API key that may not do this
    ├── KeysInUseError                       API keys are to be done without, and some are still good
    ├── IdempotencyConflictError             one Idempotency-Key for two different requests
    ├── NotFoundError
    │   ├── VideoNotFoundError
    │   └── ModelNotFoundError               lists the models there are
    ├── VideoUnavailableError                the record is there, its file is not
    │   ├── VideoNotReadyError               not yet
    │   ├── VideoFailedError                 never will be
    │   └── VideoGoneError                   no more: expired or removed
    ├── TryLaterError                        the same request may be taken after a while: says after how many seconds
    │   ├── RateLimitedError                 for the limits of its API key
    │   ├── TooManyQueuedError               for what the client itself has asked for
    │   └── OverloadedError                  for what everybody has
    ├── InvalidCardError (a ValueError)      a model card that cannot be used
    ├── RedisCertificateError                Redis is not, or cannot be known to be, who it should
    └── ArtifactStoreError                   a file could not be stored, read or removed
        └── ArtifactFileMissingError         it is not there

Below the same root, where they are raised: `worker/errors.py` and `worker/video.py` (a worker that cannot start, a
video that cannot be made or is given up), `cli/` (a database or a process that does not start). Redis failing is
`redis.exceptions.RedisError`; it is not wrapped.
"""

from collections.abc import Iterable, Sequence


class FrameditError(Exception):
    """Root of everything that this project raises by name. The message is fit for a client to read."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(FrameditError, ValueError):
    """A value that the client can put right. `param` is the field's name, None where it is the body as a whole."""

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
        super().__init__(f"still good: {', '.join(key_ids)}; revoke what is to go first (`framedit keys revoke`)")


class IdempotencyConflictError(FrameditError):
    code = "idempotency_key_reused"


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


class InvalidCardError(FrameditError, ValueError):
    code = "invalid_card"


class RedisCertificateError(FrameditError):
    code = "redis_certificate"


class ArtifactStoreError(FrameditError):
    code = "artifact_store"


class ArtifactFileMissingError(ArtifactStoreError):
    """The store answers, and has no such file."""
