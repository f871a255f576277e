"""Creates the videos of one request: within the limits of its API key, and once per `Idempotency-Key`."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from jobs.access.quotas import KeyGuard, check_kept
from jobs.access.usage import UsageGuard
from jobs.admission.admission import check_wait
from jobs.admission.cost import video_cost, with_rows
from jobs.cards import ModelCard
from jobs.errors import VideoNotFoundError
from jobs.queue.enqueue import Guard
from jobs.telemetry import log_context
from jobs.videos.idempotency import AlreadyCreatedError, OnceGuard, fingerprint
from jobs.videos.record import VideoRecord, VideoRequest, new_records
from server.auth import Caller, CreatorDep, check_priority, find_visible
from server.creation.model_choice import choose_model, find_model
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.prompts.review import review_prompt
from server.references.frames import read_frames, stored_frames
from server.references.requests import ReferencedRequest, resolve_create, resolve_edit, resolve_extension
from server.references.source import find_source
from server.request_body import FieldsDep
from server.validation import resolve_remix
from server.webhooks.url_check import check_webhook_url
from server.wire import CreateVideo, EditVideo, ExtendVideo, RemixVideo

logger = logging.getLogger(__name__)

# What every route that creates videos can answer.
CREATION_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_KEY_PATTERN = r"^[!-~]([ -~]*[!-~])?$"


@dataclass(frozen=True)
class Creation:
    """The creation of videos by one request.

    All methods return the videos of an earlier request where it had the same `Idempotency-Key`. The request is
    validated only if it is new: what is refused now may have been valid then.

    :raises InvalidRequestError: for values that the model does not allow.
    :raises TryLaterError: when the wait would be too long, a limit of the caller's key is reached, or prompts cannot be
        moderated.
    :raises IdempotencyConflictError: when the earlier request was a different one.
    """

    services: Services
    caller: Caller
    once: OnceGuard | None
    response: Response

    def create(self, body: CreateVideo, file: bytes | None = None) -> Sequence[VideoRecord]:
        """`body.n` new videos. `file` is an uploaded `input_reference`."""

        def resolve() -> ReferencedRequest:
            check_webhook_url(body.webhook_url, self.services.settings)
            given, source = body.input_reference, None
            if given is not None:
                source = find_source("input_reference", given, file, self.services, self.caller)
            return resolve_create(body, source, self._choose_model, self.services.settings)

        return self._create_once(resolve, count=body.n, enhance=body.enhance_prompt)

    def edit(self, body: EditVideo, file: bytes | None) -> VideoRecord:
        """A video from a noisy copy of another one. `file` is an uploaded `video`."""

        def resolve() -> ReferencedRequest:
            check_webhook_url(body.webhook_url, self.services.settings)
            source = find_source("video", body.video, file, self.services, self.caller)
            return resolve_edit(body, source, self._choose_model, self.services.settings)

        return self._create_once(resolve, enhance=body.enhance_prompt)[0]

    def extend(self, body: ExtendVideo, file: bytes | None) -> VideoRecord:
        """A video that is another one and its continuation. `file` is an uploaded `video`."""

        def resolve() -> ReferencedRequest:
            check_webhook_url(body.webhook_url, self.services.settings)
            source = find_source("video", body.video, file, self.services, self.caller)
            return resolve_extension(body, source, self._choose_model, self.services.settings)

        return self._create_once(resolve, enhance=body.enhance_prompt)[0]

    def remix(self, video_id: str, body: RemixVideo) -> VideoRecord:
        """A new video from the settings of an existing one.

        :raises VideoNotFoundError: when the caller has no such video.
        """

        def resolve() -> ReferencedRequest:
            source = find_visible(self.services, self.caller, video_id)
            card = find_model(self.services.redis, source.request.model)
            frames = read_frames(self.services.artifacts, source)
            return ReferencedRequest(resolve_remix(body, source.request, card), card, frames)

        return self._create_once(resolve, remixed_from=video_id)[0]

    def _choose_model(self, body: CreateVideo) -> ModelCard:
        return choose_model(self.services.redis, body, self.services.settings.default_model)

    def _create_once(
        self,
        resolve: Callable[[], ReferencedRequest],
        count: int = 1,
        remixed_from: str | None = None,
        enhance: bool = False,
    ) -> Sequence[VideoRecord]:
        try:
            earlier = self.once.find(self.services.redis) if self.once else None
            if earlier is None:
                return self._create_new(resolve(), count, remixed_from, enhance)
        except AlreadyCreatedError as error:  # by a concurrent request with the same key
            earlier = error.video_ids
        return self._replay(earlier)

    def _create_new(
        self, resolved: ReferencedRequest, count: int, remixed_from: str | None, enhance: bool
    ) -> Sequence[VideoRecord]:
        check_priority(self.caller, resolved.request.priority)
        self.services.memory.check()
        self._check_kept(count)
        card = resolved.card

        def records_of(request: VideoRequest) -> Sequence[VideoRecord]:
            request = with_rows(request, card)
            cost = video_cost(request, card)
            return new_records(request, time.time(), count, remixed_from, owner=self.caller.owner, cost=cost)

        check_wait(self.services.redis, records_of(resolved.request), self.services.settings.max_wait_seconds)
        # Last: a request that is refused for another reason costs the services nothing.
        enhancer, moderation = self.services.enhancer, self.services.moderation
        records = records_of(review_prompt(resolved.request, card, enhance, self.caller.owner, enhancer, moderation))
        # The frames first: a worker may start a video as soon as its record exists.
        with stored_frames(self.services.artifacts, records, resolved.frames):
            self.services.store.create(*records, guards=self._guards())
        for record in records:
            with log_context.about(video_id=record.id):
                logger.info("%s: accepted, model %s", record.id, record.request.model)
        return records

    def _check_kept(self, num_new: int) -> None:
        settings, key = self.services.settings, self.caller.key
        of_owner = (key.limits.videos_kept if key else None) or settings.max_kept_videos_per_key
        check_kept(self.services.redis, self.caller.owner, num_new, settings.max_kept_videos, of_owner)

    def _guards(self) -> Sequence[Guard]:
        # The idempotency guard first: a repeated request is not subject to limits.
        once = [self.once] if self.once else []
        limits = [KeyGuard(self.caller.key)] if self.caller.key else []
        return [*once, *limits, UsageGuard(self.caller.owner)]

    def _replay(self, video_ids: Sequence[str]) -> Sequence[VideoRecord]:
        records = self.services.store.fetch(video_ids)
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
            description="A repeated request with the same key within 24 hours returns the same videos",
        ),
    ] = None,
) -> Creation:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in fields.files.items()}
    request_fingerprint = fingerprint(request.url.path, fields.values, fields.typed, *([digests] if digests else []))
    once = OnceGuard(caller.owner, key, request_fingerprint) if key is not None else None
    return Creation(services, caller, once, response)


CreationDep = Annotated[Creation, Depends(_creation)]
