"""Every example runs as its documentation describes: against a real `framedit serve`, or without a server."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from jobs.cards import read_card, write_card
from tests.e2e.conftest import REPOSITORY, Serve, environment, serving
from tests.forked import python, run
from tests.mp4 import decode_mp4
from tests.waiting import wait_for

EXAMPLES = REPOSITORY / "examples"
WEBHOOK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TESTED = {
    "animation.py",
    "comfyui_framedit.py",  # by test_comfyui_node.py
    "first_video.ipynb",
    "first_video.py",
    "many_videos.py",
    "webhook_receiver.py",
    "without_a_server.py",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose checkpoints/demo-text is the real one with fewer steps."""
    root = tmp_path_factory.mktemp("examples")
    source, folder = REPOSITORY / "checkpoints" / "demo-text", root / "checkpoints" / "demo-text"
    folder.mkdir(parents=True)
    (root / "adapters").symlink_to(REPOSITORY / "adapters")
    for path in source.iterdir():
        if path.name != "card.json":
            (folder / path.name).symlink_to(path)
    write_card(folder, read_card(source).model_copy(update={"num_inference_steps": 2}))
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Serve]:
    settings = {"FRAMEDIT_WEBHOOK_SECRET": WEBHOOK_SECRET, "FRAMEDIT_WEBHOOK_ALLOW_PRIVATE": "true"}
    with serving(root / "data", root / "checkpoints", **settings) as running:
        yield running


def example_environment(root: Path, server: str = "") -> dict[str, str]:
    names = {"PYTHONPATH": str(REPOSITORY), "FRAMEDIT_SERVER": server, "FRAMEDIT_WEBHOOK_SECRET": WEBHOOK_SECRET}
    return environment(root / "data") | {name: value for name, value in names.items() if value}


def run_example(root: Path, *arguments: str | Path, server: str = "") -> str:
    """Run an example in `root`, and return its output."""
    result = run(python, arguments, example_environment(root, server), root, timeout_seconds=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_is_a_video(path: Path) -> None:
    assert decode_mp4(path).frames.shape == (16, 64, 64, 3)


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")} == TESTED


def test_first_video_downloads_a_video(root: Path, served: Serve) -> None:
    output = run_example(root, EXAMPLES / "first_video.py", server=served.url)
    assert output.startswith("video.mp4  video_")
    assert_is_a_video(root / "video.mp4")


def test_many_videos_shows_the_progress_of_each_and_downloads_all(root: Path, served: Serve) -> None:
    output = run_example(root, EXAMPLES / "many_videos.py", server=served.url)
    files = [line.rpartition(": ")[2] for line in output.splitlines() if line.endswith(".mp4")]
    assert len(files) == 3
    assert "step 2 of 2" in output or "position" in output, output
    for name in files:
        assert_is_a_video(root / name)


@contextmanager
def receiving(root: Path, server: str) -> Iterator[str]:
    """The webhook receiver on a free port; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (root / "receiver.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "webhook_receiver.py"), str(port)],
            cwd=root,
            env=example_environment(root, server),
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: can_connect(port), "the webhook receiver")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_webhook_receiver_downloads_the_video_and_refuses_a_forged_webhook(root: Path, served: Serve) -> None:
    with receiving(root, served.url) as url:
        forged = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        assert httpx.post(url, json={"type": "video.completed", "data": {}}, headers=forged).status_code == 401
        video = served.post(model="demo-text", prompt="a blue star spinning", webhook_url=url)
        file = f"{video['id']}.mp4"
        wait_for(lambda: file in (root / "receiver.log").read_text(), "the webhook's video", 60)
        assert_is_a_video(root / file)


def test_without_a_server_writes_a_video(root: Path) -> None:
    output = run_example(root, EXAMPLES / "without_a_server.py")
    assert "step 2 of 2" in output
    assert "(16, 64, 64, 3) uint8" in output
    assert_is_a_video(root / "video.mp4")
    assert_is_a_video(root / "sparkle.mp4")


def test_animation_tiles_the_videos(root: Path) -> None:
    run_example(root, EXAMPLES / "animation.py", "tiles.webp", "a blue star spinning", "a red square growing")
    with Image.open(root / "tiles.webp") as picture:
        assert (picture.n_frames, picture.size) == (16, (676, 222))  # type: ignore[attr-defined]


def test_the_notebook_runs_from_top_to_bottom(root: Path) -> None:
    notebook = json.loads((EXAMPLES / "first_video.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (root / "notebook.py").write_text("\n\n".join(cells), encoding="utf-8")
    (root / "video.mp4").unlink(missing_ok=True)
    run_example(root, "notebook.py")
    assert_is_a_video(root / "video.mp4")


def readme_example(language: str, start: str, server: str) -> str:
    """The example of README.md that starts with `start`, for a server at another address."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (example,) = (block for block in blocks if block.startswith(start))
    return str(example).replace("http://127.0.0.1:8000", server)


@pytest.mark.parametrize("start", ["from openai", "from worker.library"])
def test_the_python_examples_of_the_readme_write_a_video(root: Path, served: Serve, start: str) -> None:
    (root / "video.mp4").unlink(missing_ok=True)
    run_example(root, "-c", readme_example("python", start, served.url))
    assert_is_a_video(root / "video.mp4")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_example_of_the_readme_downloads_a_video(root: Path, served: Serve) -> None:
    (root / "video.mp4").unlink(missing_ok=True)
    example = readme_example("bash", "videos=", served.url)
    subprocess.run(["bash", "-euc", example], cwd=root, env=example_environment(root), check=True, timeout=120)
    assert_is_a_video(root / "video.mp4")
