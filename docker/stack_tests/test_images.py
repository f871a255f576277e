"""The images by themselves: their size, their layers, and what they say of themselves."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .compose import REPOSITORY, run

MEGABYTE = 1 << 20
SERVICES = {"setup": "framedit-server:{tag}", "worker": "framedit-worker:{tag}-cpu"}


def test_the_servers_image_is_small_and_holds_no_torch() -> None:
    base = os.environ.get("BASE_IMAGE", "python:3.11-slim")
    size, base_size = (
        int(run("docker", "image", "inspect", "-f", "{{.Size}}", name)) for name in ("framedit-server", base)
    )
    assert size - base_size < 320 * MEGABYTE  # 164 of them are ffmpeg, which decodes reference images and videos
    code = "import importlib.util as u; assert not any(map(u.find_spec, ('torch', 'pip', 'numpy')))"
    run("docker", "run", "--rm", "--entrypoint", "/opt/framedit/bin/python", "framedit-server", "-c", code)


@pytest.mark.parametrize("image", SERVICES.values())
def test_images_say_what_they_are_and_need_no_shell(image: str) -> None:
    config = json.loads(run("docker", "image", "inspect", image.format(tag="latest")))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/opt/framedit/bin/framedit"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.version"]


def test_threads_of_workers_that_share_a_machine_do_not_spin() -> None:
    config = json.loads(run("docker", "image", "inspect", "framedit-worker:latest-cpu"))[0]["Config"]
    assert "OMP_WAIT_POLICY=PASSIVE" in config["Env"]


@pytest.fixture
def changed_source(tmp_path: Path) -> Iterator[Path]:
    """A copy of the repository, one line longer."""
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (REPOSITORY / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / name)
    with (tmp_path / "jobs/__init__.py").open("a") as file:
        file.write("# changed\n")
    yield tmp_path
    run("docker", "image", "rm", "-f", *(image.format(tag="changed") for image in SERVICES.values()))


def test_a_change_of_the_source_changes_one_small_layer(changed_source: Path) -> None:
    def layers(image: str) -> list[str]:
        return list(json.loads(run("docker", "image", "inspect", "-f", "{{json .RootFS.Layers}}", image)))

    build = ["docker", "compose", "--progress", "plain", "--project-directory", str(changed_source), "build"]
    log = run(*build, *SERVICES, env={"TAG": "changed"}, errors=True)
    assert "Downloading" not in log, log  # what pip says of everything that it fetches
    for image in SERVICES.values():
        before, after = (layers(image.format(tag=tag)) for tag in ("latest", "changed"))
        assert before[:-1] == after[:-1]
        assert before[-1] != after[-1]
        sizes = run("docker", "history", "--human=false", "--format", "{{.Size}}", image.format(tag="changed"))
        changed = next(int(size) for size in sizes.split() if size != "0")
        assert changed < 5 * MEGABYTE
