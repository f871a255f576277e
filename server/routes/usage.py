"""The route of usage and quotas."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from jobs.access.quotas import spent_today, videos_in_flight, videos_kept
from jobs.access.rate_limits import RateLimit
from jobs.access.usage import MAX_DAYS, DayUsage, read_usage, usage_csv
from server.auth import REFUSALS, Caller, CallerDep
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.middleware.request_log import RATE_LIMIT

router = APIRouter(prefix="/v1/usage", tags=["usage"], responses=REFUSALS)

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The usage", "content": {"text/csv": {"schema": {"type": "string"}}}},
    **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
}


class Quota(BaseModel):
    """A limit of your API key, and what is left of it."""

    limit: float | None = Field(description="None: no limit")
    used: float | None = Field(description="None where nothing is counted without a limit")
    remaining: float | None = Field(description="None: no limit")


class Quotas(BaseModel):
    """All limits of your API key."""

    requests_per_minute: Quota
    videos_in_flight: Quota
    videos_kept: Quota
    cost_per_day: Quota


class Usage(BaseModel):
    """Quotas of your API key, and usage by day and key, the newest day first."""

    object: Literal["usage"] = "usage"
    key: str | None = Field(description="Id of your API key, null without one")
    quotas: Quotas | None = Field(description="Null without an API key")
    days: Sequence[DayUsage]


@router.get("", responses=_RESPONSES, response_model=Usage)
def usage(
    caller: CallerDep,
    services: ServicesDep,
    request: Request,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Number of days, including today (UTC)")] = 30,
    format: Annotated[Literal["json", "csv"], Query(description="`csv`: the days alone, as a table")] = "json",
) -> Usage | Response:
    """Show the usage and the remaining quotas of your API key. With the scope admin, the days of all keys."""
    rows = read_usage(services.redis, days, caller.sees_only)
    if format == "csv":
        return Response(usage_csv(rows), media_type="text/csv")
    quotas = _quotas(services, caller, request.scope.get(RATE_LIMIT)) if caller.key else None
    return Usage(key=caller.owner, quotas=quotas, days=rows)


def _quotas(services: Services, caller: Caller, rate: RateLimit | None) -> Quotas:
    assert caller.key is not None
    limits, owner = caller.key.limits, caller.key.id
    kept_limit = limits.videos_kept or services.settings.max_kept_videos_per_key
    return Quotas(
        requests_per_minute=_quota(limits.requests_per_minute, rate.limit - rate.remaining if rate else None),
        videos_in_flight=_quota(limits.videos_in_flight, videos_in_flight(services.redis, owner)),
        videos_kept=_quota(kept_limit, videos_kept(services.redis, owner)),
        cost_per_day=_quota(limits.cost_per_day, spent_today(services.redis, owner)),
    )


def _quota(limit: float | None, used: float | None) -> Quota:
    return Quota(limit=limit, used=used, remaining=None if limit is None else max(0.0, limit - (used or 0)))
