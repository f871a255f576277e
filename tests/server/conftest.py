"""A server that every test of the API shares, and a stand-in for its worker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.artifacts import KINDS, ArtifactStore
from jobs.cards import ModelCard, announce
from jobs.records import Artifact, ArtifactKind, Timings
from jobs.settings import Settings
from jobs.store import VideoStore

from .serving import serving


@pytest.fixture(scope="session")
def settings(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir = tmp_path_factory.mktemp("data")
    return Settings(redis_url=redis_server, data_dir=data_dir, artifacts=data_dir / "artifacts", max_body_bytes=100_000)


@pytest.fixture(scope="session")
def server_url(settings: Settings) -> Iterator[str]:
    with serving(settings) as url:
        yield url


@pytest.fixture
def http(server_url: str, redis: Redis, text_card: ModelCard, class_card: ModelCard) -> Iterator[httpx.Client]:
    """A client of a server that knows a text and a class model and has no videos."""
    announce(redis, text_card, "w1", ttl_seconds=600)
    announce(redis, class_card, "w1", ttl_seconds=600)
    with httpx.Client(base_url=server_url, timeout=10) as client:
        yield client


@pytest.fixture
def finish(store: VideoStore, settings: Settings, tmp_path: Path) -> Callable[[str, bytes], None]:
    """Do with a queued video what a worker would: start it, store its file, complete it."""
    artifacts = ArtifactStore(settings.artifacts)

    def finish(video_id: str, content: bytes) -> None:
        source = tmp_path / "made.mp4"
        source.write_bytes(content)
        assert store.start(video_id, "w1") is not None
        made: dict[ArtifactKind, Artifact] = {"video": artifacts.write(video_id, "video", source)}
        for kind in KINDS[1:]:
            source.write_bytes(f"the {kind} of ".encode() + content[:10])
            made[kind] = artifacts.write(video_id, kind, source)
        assert store.complete(video_id, made, Timings(denoise_s=1.0, decode_s=0.5, encode_s=0.25), "w1")

    return finish
