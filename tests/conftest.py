"""Fixtures of all tests: a real Redis-protocol server, started once and emptied for each test."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which other libraries do, too

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis import Redis

from cli.processes.embedded_redis import EmbeddedRedis
from jobs.cards import ModelCard
from jobs.connection import connect
from tests.jobs.every_role import EveryRole
from tests.leftovers import Leftovers

TESTS = Path(__file__).parent

# Every HTTP client reads the certificates of all CAs first, 50 ms each time. No test meets a server that one signed.
os.environ["SSL_CERT_FILE"] = os.environ["AWS_CA_BUNDLE"] = str(TESTS / "one_authority.pem")

# A shell starts background jobs with SIGINT ignored. The tested commands would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("patient", deadline=None)  # no test fails because the machine is busy
settings.load_profile("patient")


# Folders from the slowest to the fastest, the others last. `make test` runs files in parallel and starts with the slow
# ones, so that none of them is left for the end.
SLOWEST_FIRST = ("faults", "e2e", "cli", "browser", "benchmarks", "training", "worker", "server", "jobs")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # with several processes, in the one that reports
        config.pluginmanager.register(Leftovers(TESTS.parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).parts[0]) if TESTS in item.path.parents else 0)


def _place(folder: str) -> int:
    return SLOWEST_FIRST.index(folder) if folder in SLOWEST_FIRST else len(SLOWEST_FIRST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=TESTS / "golden",
        help="folder of golden files for tests/golden (default: the ones that ship with the tests)",
    )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server process of this test process."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty database."""
    with connect(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> EveryRole:
    return EveryRole(redis)


@pytest.fixture
def text_card() -> ModelCard:
    return ModelCard(
        id="tiny-text",
        description="a text model for tests",
        created=1_700_000_000,
        conditioning="text",
        num_frames=16,
        min_frames=2,
        max_frames=16,
        height=64,
        width=96,
        fps=8,
        num_inference_steps=20,
        max_inference_steps=250,
        guidance_scale=7.5,
        sampler="ddim",
        samplers=["ddim", "euler"],
        negative_prompt="",
        max_prompt_characters=100,
        examples=["a red circle moving right on a black background"],
    )


@pytest.fixture
def class_card(text_card: ModelCard) -> ModelCard:
    changes = {"id": "tiny-class", "conditioning": "class", "class_names": ["circle-left", "circle-right", "star-up"]}
    return text_card.model_copy(update=changes)


@pytest.fixture
def artifacts_dir(tmp_path: Path) -> Path:
    """An artifact folder that has been set up."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return folder
