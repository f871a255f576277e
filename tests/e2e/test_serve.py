"""`framedit serve` from the first request to Ctrl-C."""

import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import Serve, command, environment, example_of
from tests.forked import framedit
from tests.mp4 import decode_mp4
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LONG = 1000  # steps: tens of seconds


def test_a_request_becomes_a_playable_video(served: Serve, tmp_path: Path) -> None:
    video = served.post(num_frames=3, fps=12)
    done = served.wait_until(video["id"], "completed", "failed")
    content = served.http.get(f"/v1/videos/{video['id']}/content")
    (tmp_path / "video.mp4").write_bytes(content.content)
    decoded = decode_mp4(tmp_path / "video.mp4")
    assert done["error"] is None
    assert (done["progress"], done["size"], done["seconds"]) == (100, "16x16", "0.25")
    assert min(done["timings"].values()) > 0
    assert set(done["timings"]) == {"queue_s", "denoise_s", "decode_s", "encode_s"}
    assert content.headers["content-type"] == "video/mp4"
    assert decoded.frames.shape == (3, 16, 16, 3)
    assert decoded.fps == 12
    assert decoded.codec.startswith("h264")


def test_a_request_for_one_frame_becomes_a_png(served: Serve) -> None:
    answer = served.http.post("/v1/videos/sync", json={"class_label": "left", "num_frames": 1}, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (16, 16))
    url = f"/v1/videos/{answer.headers['x-video-id']}/content?variant=thumbnail"
    assert served.http.get(url).headers["content-type"] == "image/webp"


def test_the_printed_example_and_the_command_line_make_the_same_video(
    served: Serve, checkpoints: Path, tmp_path: Path
) -> None:
    example = example_of(served.log.read_text())
    assert "no API keys exist: clients on this machine are served without one" in served.log.read_text()
    video = served.http.post("/v1/videos", json=example).json()
    served.wait_until(video["id"], "completed")
    output = tmp_path / "out.mp4"
    arguments = (
        "generate",
        "--checkpoints",
        checkpoints,
        "--class",
        example["class_label"],
        "--seed",
        "7",
        "-o",
        output,
    )
    result = framedit(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{output}  4 frames at 8 fps, tiny, seed 7\n"
    frames = decode_mp4(output).frames
    (tmp_path / "served.mp4").write_bytes(served.http.get(f"/v1/videos/{video['id']}/content").content)
    np.testing.assert_array_equal(frames, decode_mp4(tmp_path / "served.mp4").frames)


def test_cancel_and_delete_stop_generation(served: Serve) -> None:
    # Two long videos, and a third one that starts only after both have stopped.
    first, second, last = served.post(num_inference_steps=LONG), served.post(num_inference_steps=LONG), served.post()
    served.wait_for_step(first["id"])
    assert served.http.delete(f"/v1/videos/{first['id']}").json()["deleted"] is True
    served.wait_for_step(second["id"])
    assert served.http.delete(f"/v1/videos/{second['id']}").status_code == 200
    assert served.wait_until(last["id"], "completed", "failed")["status"] == "completed"
    assert served.http.get(f"/v1/videos/{first['id']}").status_code == 404


def test_the_model_is_listed_with_its_worker(served: Serve) -> None:
    def alive() -> bool:
        [model] = served.http.get("/v1/models").json()["data"]
        assert model["id"] == "tiny"
        return bool(model["workers_alive"] == 1)

    wait_for(alive, "the worker's announcement")


def test_json_output_lists_the_served_models(checkpoints: Path, tmp_path: Path) -> None:
    arguments = ("serve", "--json", "--port", "0", "--data-dir", tmp_path / "data", "--checkpoints", checkpoints)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(*arguments), env=environment(tmp_path), **pipes) as process:  # type: ignore[call-overload]
        printed = json.loads(process.stdout.readline())
        answer = httpx.post(f"{printed['url']}/v1/videos", json=printed["try"])
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert answer.status_code == 200, answer.text
    assert (printed["models"], printed["needs_key"], printed["data_dir"]) == (["tiny"], False, str(tmp_path / "data"))
    assert process.returncode == 0
    assert {json.loads(line)["process"] for line in log.splitlines()} >= {"server", "serve"}


def test_a_second_server_over_the_same_data_is_refused(served: Serve, checkpoints: Path, tmp_path: Path) -> None:
    data_dir = served.log.parent / "data"
    arguments = ("serve", "--port", "0", "--data-dir", data_dir, "--checkpoints", checkpoints)
    result = framedit(*arguments)
    assert result.returncode == 2
    assert f"framedit: the data folder {data_dir / 'redis'} is in use" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_port_in_use_is_refused(served: Serve, checkpoints: Path, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    arguments = ("serve", "--port", port, "--data-dir", tmp_path, "--checkpoints", checkpoints)
    result = framedit(*arguments)
    assert result.returncode == 2
    expected = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port"
    assert result.stderr == f"framedit: {expected}\n"
