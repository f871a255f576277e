"""The services that routes depend on, built from the settings by `create_app`."""

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request
from redis import Redis

from jobs.access.rate_limits import RequestLimiter
from jobs.admission.redis_memory import MemoryCheck
from jobs.connection import connect, connect_async
from jobs.queue.enqueue import VideoQueue
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.telemetry.metrics import Metrics, Publisher
from server.events.event_hub import EventHub
from server.http.address_limits import AddressLimiter
from server.polling.batched_redis import BatchedRedis
from server.polling.forecast_cache import ForecastCache
from server.prompts.enhancer import Enhancer
from server.prompts.moderation import Moderation
from server.readiness import Readiness


@dataclass(frozen=True)
class Services:
    """Everything that requests share in one API process."""

    settings: Settings
    redis: Redis
    store: VideoQueue
    artifacts: ArtifactStore
    store_mark: StoreMark
    request_limiter: RequestLimiter
    events: EventHub
    batched: BatchedRedis
    forecasts: ForecastCache
    metrics: Metrics
    publisher: Publisher
    memory: MemoryCheck
    failed_keys: AddressLimiter
    anonymous_requests: AddressLimiter
    readiness: Readiness
    enhancer: Enhancer | None
    moderation: Moderation | None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        if settings.redis_url is None:
            raise ValueError("no Redis is configured: set REDIS_URL, or run `framedit serve`, which starts its own")
        redis = connect(settings.redis_url, settings.redis_timeout_seconds)
        store = VideoQueue(redis, settings.video_ttl_seconds)
        batched = BatchedRedis(connect_async(settings.redis_url, settings.redis_timeout_seconds))
        metrics = Metrics()
        mark = StoreMark(redis)
        artifacts = ArtifactStore(settings.artifacts, expected_mark=mark.expected)
        return cls(
            settings,
            redis,
            store,
            artifacts=artifacts,
            store_mark=mark,
            request_limiter=RequestLimiter(redis),
            events=EventHub(settings.redis_url, settings.redis_timeout_seconds),
            batched=batched,
            forecasts=ForecastCache(redis),
            metrics=metrics,
            publisher=Publisher(redis, metrics),
            memory=MemoryCheck(redis),
            failed_keys=AddressLimiter(settings.failed_keys_per_minute, "requests with an unknown API key"),
            anonymous_requests=AddressLimiter(settings.anonymous_requests_per_minute, "requests without an API key"),
            readiness=Readiness(redis, artifacts),
            enhancer=Enhancer.from_settings(settings),
            moderation=Moderation.from_settings(settings),
        )

    def close(self) -> None:
        """Close the connections that no event loop owns."""
        self.redis.close()
        for service in (self.enhancer, self.moderation):
            if service is not None:
                service.close()


async def get_services(request: Request) -> Services:
    # Async although it awaits nothing: FastAPI runs a plain function in a thread, for each request.
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
