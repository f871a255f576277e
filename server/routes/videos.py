"""Videos: ask for one, look at it, list, cancel, delete, remix."""

import time
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from jobs.cards import ModelCard, find_card, known_models
from jobs.cost import video_cost
from jobs.errors import InvalidRequestError, ModelNotFoundError
from jobs.forecast import forecast
from jobs.records import ID_PATTERN, VideoRecord, new_records
from server.auth import (
    REFUSALS,
    CreatorDep,
    Credentials,
    ReaderDep,
    authenticate_and_read,
    check_scope,
    check_visible,
    find_visible,
)
from server.body import FieldsDep
from server.creation import CreationDep
from server.dependencies import Services, ServicesDep, get_services
from server.errors import described_headers, documented
from server.looks import pause_ms, questions, record_of
from server.openapi import links_of_video, request_body
from server.validation import CreateVideo, RemixVideo, parse, resolve, resolve_remix
from server.webhook_url import check_webhook_url
from server.wire import DeletedVideo, Video, VideoList, to_video, to_videos

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_BODY_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_POLL_HEADER = "openai-poll-after-ms"
_POLLED: dict[int | str, dict[str, Any]] = {
    200: {"headers": described_headers({_POLL_HEADER: "Milliseconds after which to look again, until it has ended"})}
}
_ID_ERRORS = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


@router.post("", responses=links_of_video() | _BODY_ERRORS, openapi_extra=request_body(CreateVideo))
def create_video(creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video | VideoList:
    """Ask for a video. The answer comes at once, the video later: look at it until it is `completed`, or `failed`.

    With `n` above 1 the answer is a list of that many videos.
    """
    body = parse(CreateVideo, fields)

    def make() -> list[VideoRecord]:
        check_webhook_url(body.webhook_url, services.settings)
        card = _card(services, body.model)
        request = resolve(body, card)
        return new_records(request, time.time(), body.n, owner=creation.caller.owner, cost=video_cost(request, card))

    records = creation.create(make)
    videos = show(services, *records)
    return videos[0] if body.n == 1 else VideoList.of(videos)


@router.get("", responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE))
def list_videos(
    caller: ReaderDep,
    services: ServicesDep,
    after: Annotated[
        str | None,
        Query(
            description="The id of the last video of the page before",
            json_schema_extra={"pattern": f"^{ID_PATTERN}$"},
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation")] = "desc",
) -> VideoList:
    """The caller's videos, newest first; for the scope admin, everybody's."""
    page = services.store.list(after, limit, order, owner=caller.sees_only)
    return VideoList.of(show(services, *page.records), page.has_more)


@router.get("/{video_id}", responses=_POLLED | _ID_ERRORS, response_model=Video)
async def retrieve_video(video_id: str, credentials: Credentials, request: Request) -> Response:
    """A video's state, also when it failed. The header `openai-poll-after-ms` tells when to ask again."""
    services = await get_services(request)
    caller, answers = await authenticate_and_read(request, services, credentials, *questions(video_id))
    record = check_visible(check_scope(caller, "read"), record_of(video_id, answers))
    forecast = await services.looks.forecast(record)
    unfinished = record.status in ("queued", "in_progress")
    headers = {_POLL_HEADER: str(pause_ms(forecast))} if unfinished else {}
    # Written as it is: FastAPI would check once more what was made a line before.
    return Response(to_video(record, forecast).model_dump_json(), headers=headers, media_type="application/json")


@router.delete("/{video_id}", responses=_ID_ERRORS)
def delete_video(video_id: str, caller: CreatorDep, services: ServicesDep) -> DeletedVideo:
    """Remove a video and its files. If it is being made, that stops at the next denoising step."""
    find_visible(services, caller, video_id)
    services.store.delete(video_id)
    services.artifacts.delete(video_id)
    return DeletedVideo(id=video_id)


@router.post("/{video_id}/cancel", responses=_ID_ERRORS)
def cancel_video(video_id: str, caller: CreatorDep, services: ServicesDep) -> Video:
    """Stop the making of a video; it ends as `failed` with the code `cancelled`. One that has ended stays as it is."""
    find_visible(services, caller, video_id)
    return show(services, services.store.cancel(video_id))[0]


@router.post("/{video_id}/remix", responses=links_of_video() | _BODY_ERRORS, openapi_extra=request_body(RemixVideo))
def remix_video(video_id: str, creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video:
    """Make a video once more, with the same model, seed and settings and a new prompt."""
    body = parse(RemixVideo, fields)

    def make() -> list[VideoRecord]:
        source = find_visible(services, creation.caller, video_id).request
        card = _card(services, source.model)
        request = resolve_remix(body, source, card)
        cost = video_cost(request, card)
        return new_records(request, time.time(), remixed_from=video_id, owner=creation.caller.owner, cost=cost)

    return show(services, *creation.create(make))[0]


def _card(services: Services, model: str | None) -> ModelCard:
    card = find_card(services.redis, model) if model is not None else None
    if card is not None:
        return card
    known = known_models(services.redis)
    if model is not None:
        raise ModelNotFoundError(model, known)
    if len(known) != 1:
        raise InvalidRequestError(f"model is missing; the models here are: {', '.join(known) or 'none yet'}", "model")
    return next(iter(known.values()))[0]


def show(services: Services, *records: VideoRecord) -> list[Video]:
    """The records as clients see them."""
    return to_videos(records, forecast(services.redis, records))
