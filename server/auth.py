"""Authentication by API keys (`Authorization: Bearer fd-...`), and authorization by their scopes.

A route declares what it needs (`ReaderDep`, `CreatorDep`, `DeleterDep`, `AdminDep`,
`CallerDep`) and receives the caller. While
no key was ever created, every caller has all scopes, on a server that listens on loopback or has `allow_anonymous`.
"""

import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.exceptions import RedisError

from jobs.access.api_keys import ApiKey, Identified, Scope, questions, recognize
from jobs.access.rate_limits import RateLimit
from jobs.errors import AuthenticationError, PermissionDeniedError, VideoNotFoundError
from jobs.settings import Settings, is_loopback, split_list
from jobs.videos.record import Priority, VideoRecord
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.middleware.request_log import KEY_ID, RATE_LIMIT
from server.polling.batched_redis import Command

# The errors of every route that authenticates its caller.
REFUSALS = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)

_bearer = HTTPBearer(
    auto_error=False, scheme_name="API key", description="As soon as `framedit keys create` has made one"
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


@dataclass(frozen=True)
class Caller:
    """The client of a request. `key` is None where the server runs without keys."""

    key: ApiKey | None

    @property
    def owner(self) -> str | None:
        """The owner of the videos that this caller creates."""
        return self.key.id if self.key else None

    @property
    def sees_all(self) -> bool:
        return self.key is None or "admin" in self.key.scopes

    @property
    def sees_only(self) -> str | None:
        """The owner whose videos this caller sees, None for those of all."""
        return None if self.sees_all else self.owner

    def may(self, scope: Scope) -> bool:
        return self.key is None or scope in self.key.scopes or "admin" in self.key.scopes


async def authenticate(request: Request, services: ServicesDep, credentials: Credentials) -> Caller:
    """Return the caller, and count the request.

    :raises AuthenticationError: when keys exist and the request has none that is valid.
    :raises PermissionDeniedError: when no keys exist and the request comes from a foreign web page.
    :raises RateLimitedError: when the caller has no requests left this minute.
    """
    return (await authenticate_and_read(request, services, credentials))[0]


async def authenticate_and_read(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None, *commands: Command
) -> tuple[Caller, list[Any]]:
    """As `authenticate`, with the replies to commands of the route, read in the same exchange with Redis."""
    token = credentials.credentials if credentials else None
    asked = questions(token)
    # In the event loop, together with the reads of concurrent requests: this is part of every request.
    answers = await services.batched.read(*asked, *commands)
    found = recognize(token, answers[: len(asked)], time.time())
    if not found.keys_exist and services.settings.serves_anonymous:
        _check_origin(request, services.settings)
    return await _admit(request, services, found, credentials), answers[len(asked) :]


async def _admit(
    request: Request, services: Services, found: Identified, credentials: HTTPAuthorizationCredentials | None
) -> Caller:
    address = request.client.host if request.client else ""
    if found.key is not None:
        request.scope[KEY_ID] = found.key.id  # for the request log
        if found.key.limits.requests_per_minute is not None:
            _check_rate(request, await run_in_threadpool(services.request_limiter.take, found.key))
        return Caller(found.key)
    if found.keys_exist:
        _check_rate(request, services.failed_keys.take(address))
        raise AuthenticationError(_refusal(found, has_credentials=credentials is not None))
    if not services.settings.serves_anonymous:
        raise AuthenticationError(
            "this server requires an API key, and none exists yet; `framedit keys create` creates one"
        )
    _check_rate(request, services.anonymous_requests.take(address))
    return Caller(None)


def _check_rate(request: Request, rate: RateLimit | None) -> None:
    """:raises RateLimitedError: when the request is above the limit."""
    if rate is not None:
        request.scope[RATE_LIMIT] = rate  # for the headers of the response
        rate.check()


def _refusal(found: Identified, has_credentials: bool) -> str:
    if found.has_expired:
        return "this API key has expired; ask the operator of the server for a new one"
    if has_credentials:
        return "this API key is unknown or was revoked"
    return "an API key is required; send it as the header Authorization: Bearer fd-..."


def _check_origin(request: Request, settings: Settings) -> None:
    """Refuse requests from web pages of other sites, and from DNS names that such a site has bound to this address.

    A browser sends both, and without API keys nothing else distinguishes them from requests of the user.

    :raises PermissionDeniedError: for a foreign origin, or a host that is neither loopback nor an allowed one.
    """
    # Browsers always send Host. Requests without Host or Origin come from other programs.
    host, origin = request.headers.get("host", "localhost"), request.headers.get("origin")
    allowed_origins = split_list(settings.cors_origins)
    if origin is not None and origin.partition("://")[2] != host and not {origin, "*"} & set(allowed_origins):
        raise PermissionDeniedError(
            f"without API keys, this server refuses web pages of other sites, and the origin is {origin[:100]!r}: "
            "name the origin in FRAMEDIT_CORS_ORIGINS, or create an API key"
        )
    name = re.sub(r":\d*$", "", host).strip("[]").lower()
    allowed_hosts = {allowed.lower() for allowed in split_list(settings.allowed_hosts)}
    # A page of an origin that is allowed by name needs no rebound DNS name.
    if not is_loopback(name) and not {name, "*"} & allowed_hosts and origin not in allowed_origins:
        raise PermissionDeniedError(
            f"without API keys, this server answers under loopback addresses and allowed names only, and the host is "
            f"{host[:100]!r}: use 127.0.0.1 or localhost, name the host in FRAMEDIT_ALLOWED_HOSTS, or create an "
            "API key"
        )


CallerDep = Annotated[Caller, Depends(authenticate)]


def check_scope(caller: Caller, scope: Scope) -> Caller:
    """:raises PermissionDeniedError: when the caller's key lacks the scope."""
    if not caller.may(scope):
        assert caller.key is not None
        held = ", ".join(caller.key.scopes)
        raise PermissionDeniedError(f"this requires an API key with the scope {scope}; this one has: {held}")
    return caller


def check_priority(caller: Caller, priority: Priority) -> None:
    """:raises PermissionDeniedError: when the caller's key does not allow videos of this priority."""
    if caller.key is not None and priority not in caller.key.priorities:
        allowed = ", ".join(caller.key.priorities)
        raise PermissionDeniedError(
            f"priority is {priority}; this API key allows {allowed}: set priority to one of them"
        )


async def _reader(caller: CallerDep) -> Caller:
    return check_scope(caller, "read")


async def _creator(caller: CallerDep) -> Caller:
    return check_scope(caller, "create")


async def _deleter(caller: CallerDep) -> Caller:
    return check_scope(caller, "delete")


async def _admin(caller: CallerDep) -> Caller:
    return check_scope(caller, "admin")


async def is_still_reader(services: Services, caller: Caller, credentials: HTTPAuthorizationCredentials | None) -> bool:
    """Whether a request that is in progress for long would still be accepted. Uncounted; true while Redis is away."""
    token = credentials.credentials if credentials else None
    try:
        found = recognize(token, await services.batched.read(*questions(token)), time.time())
    except RedisError:
        return True
    if caller.key is None:
        return not found.keys_exist
    return found.key is not None and Caller(found.key).may("read")


async def metrics_access(request: Request, services: ServicesDep) -> None:
    """Require an API key with the scope admin for the metrics, unless the settings open them."""
    if not services.settings.metrics_without_key:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = HTTPAuthorizationCredentials(scheme=scheme, credentials=token) if scheme.lower() == "bearer" else None
        check_scope(await authenticate(request, services, bearer), "admin")


ReaderDep = Annotated[Caller, Depends(_reader)]
CreatorDep = Annotated[Caller, Depends(_creator)]
DeleterDep = Annotated[Caller, Depends(_deleter)]
AdminDep = Annotated[Caller, Depends(_admin)]


def find_visible(services: Services, caller: Caller, video_id: str) -> VideoRecord:
    """Return the record of a video that this caller may see.

    :raises VideoNotFoundError: when it does not exist or belongs to another owner.
    """
    return check_visible(caller, services.store.get(video_id))


def check_visible(caller: Caller, record: VideoRecord) -> VideoRecord:
    """:raises VideoNotFoundError: when it belongs to another owner, so that callers cannot find out which ids exist."""
    if caller.sees_only not in (None, record.owner):
        raise VideoNotFoundError(record.id)
    return record
