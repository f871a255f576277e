"""Commands started in a folder with packages of the same names as the project's."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import command, environment, serving
from tests.waiting import wait_for


@pytest.fixture
def foreign_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("cli", "jobs", "models", "server", "worker", "torch"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('a foreign package: {name}')")
    return folder


def test_serve_runs_its_own_packages(foreign_folder: Path, checkpoints: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "data", checkpoints, folder=foreign_folder, forked=False) as served:
        served.wait_until(served.post(num_inference_steps=2)["id"], "completed")
        assert "foreign" not in served.log.read_text()


def test_workers_run_their_own_packages(
    foreign_folder: Path, checkpoints: Path, tmp_path: Path, redis_url: str
) -> None:
    log = tmp_path / "log"
    arguments = ("worker", "--devices", "all", "--checkpoints", checkpoints, "--redis-url", redis_url)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments), cwd=foreign_folder, env=environment(tmp_path / "data"), stdout=output, stderr=output
        )
    try:
        wait_for(lambda: "ready: tiny" in log.read_text() or process.poll() is not None, "a worker")
        assert "ready: tiny" in log.read_text()
        assert "foreign" not in log.read_text()
    finally:
        process.terminate()
        assert process.wait(60) == 0
