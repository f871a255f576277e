"""What the routes are given: the parts that `create_app` has made from the settings."""

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request
from redis import Redis

from jobs.artifacts import ArtifactStore
from jobs.connection import connect, connect_async
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
        events = EventHub(settings.redis_url, settings.redis_timeout_seconds)
        batched = BatchedRedis(connect_async(settings.redis_url, settings.redis_timeout_seconds))
        metrics = Metrics()
        return cls(
            settings,
            redis,
            store,
            ArtifactStore(settings.artifacts),
            events,
            batched,
            Looks(redis, batched),
            metrics,
            Publisher(redis, metrics),
        )


async def get_services(request: Request) -> Services:
    # Async, though it awaits nothing: FastAPI would send it to a thread otherwise, for each request.
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
