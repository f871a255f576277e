"""Who asks, and whether they may: API keys as `Authorization: Bearer fd-...`.

A route names what it needs (`ReaderDep`, `CreatorDep`, `AnybodyDep`) and is given the caller. As long as no key was
ever made, everybody has every scope, on a server that only its own machine can reach (or with `allow_anonymous`).
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jobs.errors import AuthenticationError, PermissionDeniedError, VideoNotFoundError
from jobs.keys import ApiKey, Identified, Scope, questions, recognize
from jobs.records import VideoRecord
from jobs.settings import Settings, is_loopback, split_origins
from server.batched_redis import Command
from server.dependencies import Services, ServicesDep
from server.errors import documented

# What every route that asks who it is may answer.
REFUSALS = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)

_bearer = HTTPBearer(
    auto_error=False, scheme_name="API key", description="As soon as `framedit keys create` has made one"
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


@dataclass(frozen=True)
class Caller:
    """Who asks. `key` is None where the server runs without keys."""

    key: ApiKey | None

    @property
    def owner(self) -> str | None:
        """Whom the videos belong to that this caller asks for."""
        return self.key.id if self.key else None

    @property
    def sees_all(self) -> bool:
        return self.key is None or "admin" in self.key.scopes

    @property
    def sees_only(self) -> str | None:
        """The owner to whose videos this caller is limited, None when to nobody's."""
        return None if self.sees_all else self.owner

    def may(self, scope: Scope) -> bool:
        return self.key is None or scope in self.key.scopes or "admin" in self.key.scopes


async def authenticate(request: Request, services: ServicesDep, credentials: Credentials) -> Caller:
    """The caller, with this request counted.

    :raises AuthenticationError: when there are keys and this is none of them.
    :raises PermissionDeniedError: when there are none, and a web page of elsewhere asks.
    :raises RateLimitedError: when the key has had its requests of this minute.
    """
    return (await authenticate_and_read(request, services, credentials))[0]


async def authenticate_and_read(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None, *commands: Command
) -> tuple[Caller, list[Any]]:
    """As `authenticate`, with the answers to what a route wants to read, in the same exchange with Redis."""
    token = credentials.credentials if credentials else None
    asked = questions(token)
    # In the event loop, with what others ask at the same time: this is part of every request.
    answers = await services.batched.read(*asked, *commands)
    found = recognize(token, answers[: len(asked)])
    if found.key is None and not found.keys_exist and not services.settings.allow_anonymous:
        _refuse_pages_of_elsewhere(request, services.settings)
    return await _admit(services, found, credentials), answers[len(asked) :]


async def _admit(services: Services, found: Identified, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if found.key is not None:
        if found.key.limits.requests_per_minute is not None:
            await run_in_threadpool(services.request_limiter.count, found.key)
        return Caller(found.key)
    if found.keys_exist:
        raise AuthenticationError(
            "this API key is not known here, or was revoked"
            if credentials
            else "an API key is needed; send it as the header Authorization: Bearer fd-..."
        )
    if not services.settings.serves_anonymous:
        raise AuthenticationError(
            "this server has no API keys yet and serves nobody without one; `framedit keys create` makes one"
        )
    return Caller(None)


def _refuse_pages_of_elsewhere(request: Request, settings: Settings) -> None:
    """A browser sends what any web page wants to this machine too, and takes any name for it that the page's owner
    gives it. Who may ask without a key is this machine's user, not the pages that they visit."""
    # A browser always names the host.
    host, origin = request.headers.get("host", "localhost"), request.headers.get("origin")
    is_own = origin in (None, f"{request.scope.get('scheme', 'http')}://{host}")
    is_own = is_own and is_loopback(re.sub(r":\d*$", "", host).strip("[]"))
    if settings.serves_anonymous and not is_own and origin not in split_origins(settings.cors_origins):
        raise PermissionDeniedError(
            "without API keys this server answers its own machine, and no web page of elsewhere: call it 127.0.0.1 or "
            "localhost, or name the page's origin in FRAMEDIT_CORS_ORIGINS"
        )


AnybodyDep = Annotated[Caller, Depends(authenticate)]


def check_scope(caller: Caller, scope: Scope) -> Caller:
    if not caller.may(scope):
        assert caller.key is not None
        held = ", ".join(caller.key.scopes)
        raise PermissionDeniedError(f"this needs an API key with the scope {scope}; this one has: {held}")
    return caller


async def _reader(caller: AnybodyDep) -> Caller:
    return check_scope(caller, "read")


async def _creator(caller: AnybodyDep) -> Caller:
    return check_scope(caller, "create")


async def metrics_access(request: Request, services: ServicesDep) -> None:
    """For the route of the metrics: an API key with the scope admin, unless the settings open it to everybody."""
    if not services.settings.metrics_without_key:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = HTTPAuthorizationCredentials(scheme=scheme, credentials=token) if scheme.lower() == "bearer" else None
        check_scope(await authenticate(request, services, bearer), "admin")


ReaderDep = Annotated[Caller, Depends(_reader)]
CreatorDep = Annotated[Caller, Depends(_creator)]


def find_visible(services: Services, caller: Caller, video_id: str) -> VideoRecord:
    """The record of a video that this caller may see.

    :raises VideoNotFoundError: when there is none, or it is another's.
    """
    return check_visible(caller, services.store.get(video_id))


def check_visible(caller: Caller, record: VideoRecord) -> VideoRecord:
    """:raises VideoNotFoundError: when it is another's: nobody learns which ids there are."""
    if caller.sees_only not in (None, record.owner):
        raise VideoNotFoundError(record.id)
    return record
