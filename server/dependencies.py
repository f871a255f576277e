"""What the routes are given: the parts that `create_app` has made from the settings."""

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request
from redis import Redis

from jobs.artifacts import ArtifactStore
from jobs.connection import connect, connect_async
from jobs.limits import RequestLimiter
from jobs.metrics import Metrics, Publisher
from jobs.settings import Settings
from jobs.store import VideoStore
from server.batched_redis import BatchedRedis
from server.event_hub import EventHub
from server.looks import Looks


@dataclass(frozen=True)
class Services:
    settings: Settings
    redis: Redis
    store: VideoStore
    artifacts: ArtifactStore
    request_limiter: RequestLimiter
    events: EventHub
    batched: BatchedRedis
    looks: Looks
    metrics: Metrics
    publisher: Publisher

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        if settings.redis_url is None:
            raise ValueError("no Redis is configured: set REDIS_URL, or use `framedit serve`, which brings its own")
        redis = connect(settings.redis_url, settings.redis_timeout_seconds)
        store = VideoStore(redis, settings.max_attempts, settings.video_ttl_seconds)
        batched = BatchedRedis(connect_async(settings.redis_url, settings.redis_timeout_seconds))
        metrics = Metrics()
        return cls(
            settings,
            redis,
            store,
            artifacts=ArtifactStore(settings.artifacts),
            request_limiter=RequestLimiter(redis),
            events=EventHub(settings.redis_url, settings.redis_timeout_seconds),
            batched=batched,
            looks=Looks(redis),
            metrics=metrics,
            publisher=Publisher(redis, metrics),
        )


async def get_services(request: Request) -> Services:
    # Async, though it awaits nothing: FastAPI would send it to a thread otherwise, for each request.
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
