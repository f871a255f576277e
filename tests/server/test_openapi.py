"""The OpenAPI document, held against the running server by schemathesis: every operation, every kind of request."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.artifacts import KINDS, ArtifactStore
from jobs.cards import ModelCard, announce
from jobs.errors import ArtifactStoreError
from jobs.keys import KeyLimits, KeyStore
from jobs.records import Timings
from jobs.settings import Settings
from jobs.store import VideoStore

from .serving import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url, data_dir=tmp_path, artifacts=tmp_path / "artifacts", webhook_secret="secret" * 4
    )


@pytest.fixture
def worker(store: VideoStore, settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Makes every video at once, the newest first, whatever it is to show."""
    source = tmp_path / "made"
    source.write_bytes(b"0123456789" * 10)
    artifacts = ArtifactStore(settings.artifacts)
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.01):
            for record in store.unfinished()[:-50:-1]:
                if store.start(record.id, "w1"):
                    with suppress(ArtifactStoreError):  # it is deleted at this moment
                        made = {kind: artifacts.write(record.id, kind, source) for kind in KINDS}
                        store.complete(record.id, made, Timings(denoise_s=1.0, decode_s=0.5, encode_s=0.5), "w1")

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()


def test_the_server_answers_as_its_description_says(
    settings: Settings, redis: Redis, worker: None, text_card: ModelCard, class_card: ModelCard, tmp_path: Path
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    announce(redis, class_card, "w1", ttl_seconds=600)
    _, token = KeyStore(redis).create(scopes=("read", "create", "admin"), limits=KeyLimits(requests_per_minute=10**6))
    env = os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks"}
    bounds = ["--max-examples", "4", "--max-time", "30"]  # of one round, and seconds for all rounds there is time for
    options = ["--checks", "all", *bounds, "--generation-database", "none"]
    with serving(settings) as url:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{url}/openapi.json",
            "--no-color",
            "-H",
            f"Authorization: Bearer {token}",
            *options,
        ]
        run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert run.returncode == 0, run.stdout + run.stderr
        headers = {"Authorization": f"Bearer {token}"}
        document = httpx.get(f"{url}/openapi.json").json()
        counted = httpx.get(f"{url}/metrics", headers=headers).text
    # Without a link that leads on from a video, all that follows from one would go untested.
    assert re.search(r"API Links: +[1-9]\d* covered", run.stdout), run.stdout
    assert "Could not resolve parameter" not in run.stdout, run.stdout
    done = set(re.findall(r'http_requests_total\{code="2\d\d",method="(\w+)",route="([^"]+)"\} ', counted))
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described - done == set(), "only refused, never done"
