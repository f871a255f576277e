"""A server that all tests of the API share, and a substitute for its worker."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.settings import Settings
from jobs.storage.artifact_store import PICTURES, ArtifactStore
from jobs.videos.record import Artifact, ArtifactKind, Timings
from jobs.videos.store import VideoStore
from tests.server.serving import serving
from tests.waiting import wait_for


@pytest.fixture(scope="session")
def settings(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "artifacts").mkdir()
    return Settings(redis_url=redis_server, data_dir=data_dir, artifacts=data_dir / "artifacts", max_body_bytes=100_000)


@pytest.fixture(scope="session")
def server_url(settings: Settings) -> Iterator[str]:
    artifacts = ArtifactStore(settings.artifacts)
    with connect(settings.redis_url or "") as redis:
        redis.flushall()  # tests of other files in this process leave the mark of another store ...
    shutil.rmtree(settings.artifacts)  # ... or servers with these settings, whose mark no database knows any more
    settings.artifacts.mkdir()
    with serving(settings) as url:
        # The first test empties the database, which must not happen while the store is being set up.
        wait_for(lambda: artifacts.mark() is not None, "the mark of the artifact store")
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
    """Start a queued video, store its files and complete it, as a worker does."""
    artifacts = ArtifactStore(settings.artifacts)

    def finish(video_id: str, content: bytes) -> None:
        source = tmp_path / "made.mp4"
        source.write_bytes(content)
        assert store.start(video_id, "w1") is not None
        main = store.get(video_id).request.result_kind
        made: dict[ArtifactKind, Artifact] = {main: artifacts.write(video_id, main, source)}
        for kind in PICTURES:
            source.write_bytes(f"the {kind} of ".encode() + content[:10])
            made[kind] = artifacts.write(video_id, kind, source)
        assert store.complete(video_id, made, Timings(denoise_s=1.0, decode_s=0.5, encode_s=0.25), "w1", 300 << 20)

    return finish
