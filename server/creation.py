"""Creating videos for a caller: within the limits of its key, and once for each `Idempotency-Key`."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from jobs import log_context
from jobs.admission import check_wait
from jobs.errors import VideoNotFoundError
from jobs.idempotency import AlreadyCreatedError, OnceGuard, fingerprint
from jobs.limits import KeyGuard
from jobs.records import VideoRecord
from jobs.store import Guard
from server.auth import Caller, CreatorDep
from server.body import FieldsDep
from server.dependencies import Services, ServicesDep

logger = logging.getLogger(__name__)

_KEY_PATTERN = r"^[!-~]([ -~]*[!-~])?$"


@dataclass(frozen=True)
class Creation:
    """The creation of videos by one request; a route gives it the records to create."""

    services: Services
    caller: Caller
    once: OnceGuard | None
    response: Response

    def create(self, make: Callable[[], Sequence[VideoRecord]]) -> Sequence[VideoRecord]:
        """What `make` gives, created; or the videos that an earlier request with the same `Idempotency-Key` created.

        `make` is not called for a request that was answered before: what is refused now may have been fine then.

        :raises TryLaterError: when the wait would be too long, or the caller's key has too many videos in flight or
            has used up its day.
        :raises IdempotencyConflictError: when the earlier request was another one.
        """
        try:
            earlier = self.once.find(self.services.redis) if self.once else None
            if earlier is None:
                records = make()
                check_wait(self.services.redis, records, self.services.settings.max_wait_seconds)
                self.services.store.create(*records, guards=self._guards())
                for record in records:
                    with log_context.about(video_id=record.id):
                        logger.info("%s: accepted, %s", record.id, record.request.model)
                return records
        except AlreadyCreatedError as error:
            earlier = error.video_ids
        return self._again(earlier)

    def _guards(self) -> Sequence[Guard]:
        # What was created already is past all limits, so it is found first.
        once = [self.once] if self.once else []
        return [*once, *([KeyGuard(self.caller.key)] if self.caller.key else [])]

    def _again(self, video_ids: Sequence[str]) -> Sequence[VideoRecord]:
        records = [record for record in map(self.services.store.find, video_ids) if record is not None]
        if not records:
            raise VideoNotFoundError(video_ids[0])
        self.response.headers["Idempotent-Replayed"] = "true"
        return records


async def _creation(
    services: ServicesDep,
    caller: CreatorDep,
    fields: FieldsDep,
    request: Request,
    response: Response,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            max_length=255,
            pattern=_KEY_PATTERN,
            description="The same request sent again with the same key within 24 hours makes no second video",
        ),
    ] = None,
) -> Creation:
    asked = fingerprint(request.url.path, fields.values, fields.typed)
    once = OnceGuard(caller.owner, key, asked) if key is not None else None
    return Creation(services, caller, once, response)


CreationDep = Annotated[Creation, Depends(_creation)]
