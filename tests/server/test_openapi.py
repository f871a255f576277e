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

from jobs.access.api_keys import KeyLimits, KeyStore
from jobs.cards import ModelCard, announce
from jobs.errors import ArtifactStoreError
from jobs.settings import Settings
from jobs.storage.artifact_store import PICTURES, ArtifactStore
from jobs.videos.record import Timings
from jobs.videos.store import VideoStore
from tests.server.serving import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url, data_dir=tmp_path, artifacts=tmp_path / "artifacts", webhook_secret="secret" * 4
    )


@pytest.fixture
def worker(store: VideoStore, settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Completes every video at once, newest first."""
    source = tmp_path / "made"
    source.write_bytes(b"0123456789" * 10)
    artifacts = ArtifactStore(settings.artifacts)
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.01):
            for record in store.unfinished()[:-50:-1]:
                if store.start(record.id, "w1"):
                    with suppress(ArtifactStoreError):  # it is deleted at this moment
                        made = {kind: artifacts.write(record.id, kind, source) for kind in ("video", *PICTURES)}
                        store.complete(record.id, made, Timings(denoise_s=1.0, decode_s=0.5, encode_s=0.5), "w1")

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()


def conform(command: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tool, again with another seed when it only stopped at a fault of its own generator."""
    for _ in range(3):
        run = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
        # It cannot validate some of the form bodies with a file that it makes up, before any of them is sent.
        if "ValueError: Unsupported type: 'Binary'" not in run.stdout or "= FAILURES =" in run.stdout:
            break
    return run


def test_the_server_conforms_to_its_openapi_document(
    settings: Settings, redis: Redis, worker: None, text_card: ModelCard, class_card: ModelCard, tmp_path: Path
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    announce(redis, class_card, "w1", ttl_seconds=600)
    _, token = KeyStore(redis).create(scopes=("read", "create", "admin"), limits=KeyLimits(requests_per_minute=10**6))
    env = os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks"}
    bounds = ["--max-examples", "4", "--max-time", "15"]  # of one round, and seconds for all rounds there is time for
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
        headers = {"Authorization": f"Bearer {token}"}
        document = httpx.get(f"{url}/openapi.json").json()
        described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
        for _ in range(3):  # on a busy machine, the seconds of one run may not reach every operation
            run = conform(command, env, tmp_path)
            assert run.returncode == 0, run.stdout + run.stderr
            counted = httpx.get(f"{url}/metrics", headers=headers).text
            done = set(re.findall(r'http_requests_total\{code="2\d\d",method="(\w+)",route="([^"]+)"\} ', counted))
            if described <= done:
                break
    # Without a link that leads on from a video, all that follows from one would go untested.
    assert re.search(r"API Links: +[1-9]\d* covered", run.stdout), run.stdout
    assert "Could not resolve parameter" not in run.stdout, run.stdout
    assert described - done == set(), "only refused, never done"
