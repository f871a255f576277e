"""`framedit bench` against a real server with a worker."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.e2e.conftest import Serve, command, environment
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

Bench = Callable[..., Result]


@pytest.fixture
def bench(served: Serve, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("FRAMEDIT_SERVER", served.url)
    return lambda *arguments: CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


def videos_of(served: Serve) -> list[dict[str, object]]:
    return list(served.http.get("/v1/videos").json()["data"])


def test_a_load_at_a_rate_is_measured_written_drawn_and_deleted(bench: Bench, served: Serve, tmp_path: Path) -> None:
    result_file, plot = tmp_path / "a.json", tmp_path / "a.svg"
    mixes = ("--steps", "2:3,4:1", "--priority", "high,low")
    output = bench(
        "--rate", 20, "-n", 12, "--warm-up", 2, *mixes, "--slo-seconds", 600, "--json", result_file, "--plot", plot
    )
    assert output.exit_code == 0, output.output
    assert "load 20 videos/s (Poisson)" in output.stdout
    assert "12 completed, 0 failed, 0 refused" in output.stdout
    assert "12 of 12 within 600 s (100%)" in output.stdout

    result = json.loads(result_file.read_text())
    assert (result["completed"], result["within_slo"]) == (12, 12)
    assert result["goodput_videos_per_second"] == result["videos_per_second"] > 0
    for sample in result["samples"]:
        assert 0 < sample["accept_s"] <= sample["done_s"]
        assert 0 <= sample["queue_s"] <= sample["first_progress_s"] <= sample["done_s"]
    sent = [sample["sent_at"] for sample in result["samples"]]
    assert len(set(sent)) == 12
    assert len(result["groups"]) > 1
    assert all("num_inference_steps" in group and "priority" in group for group in result["groups"])
    assert len(ElementTree.fromstring(plot.read_text()).findall(".//{*}polyline")) == 4
    assert videos_of(served) == []


def test_the_same_seed_sends_the_same_requests_and_keep_leaves_them(
    bench: Bench, served: Serve, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"class_label": "left"}\n\n{"class_label": "up", "num_frames": 2}\n')
    sent = []
    for _ in range(2):
        output = bench("--concurrency", 1, "-n", 4, "--warm-up", 0, "--seed", 5, "--keep", "--prompts", prompts)
        assert output.exit_code == 0, output.output
        videos = videos_of(served)
        sent.append([(video["seed"], video["class_name"], video["num_frames"]) for video in videos])
        for video in videos:
            served.http.delete(f"/v1/videos/{video['id']}")
    assert len(sent[0]) == 4
    assert sent[0] == sent[1]


def test_a_duration_ends_the_load(bench: Bench, served: Serve) -> None:
    output = bench("--duration", 0.5, "--steps", 1)
    assert output.exit_code == 0, output.output
    assert "0 failed, 0 refused" in output.stdout
    assert "4 at a time" in output.stdout


def test_refused_requests_are_counted_with_the_servers_reason(bench: Bench, served: Serve, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"class_label": "left"}\n{"class_label": "down"}\n')
    output = bench("-n", 8, "--warm-up", 0, "--prompts", prompts)
    assert output.exit_code == 0, output.output
    assert "class_label is 'down'" in output.stdout
    only_wrong = tmp_path / "wrong.txt"
    only_wrong.write_text("a red circle\n")
    output = bench("-n", 2, "--prompts", only_wrong)
    assert output.exit_code == 1
    assert "a video of the warm-up was refused: class_label is missing; tiny has the classes" in output.stderr


def test_two_results_are_compared(bench: Bench, served: Serve, tmp_path: Path) -> None:
    for name, concurrency in (("a", 1), ("b", 2)):
        bench("--concurrency", concurrency, "-n", 3, "--steps", 1, "--json", tmp_path / f"{name}.json")
    output = bench("--compare", tmp_path / "a.json", tmp_path / "b.json", "--plot", tmp_path / "both.svg")
    assert output.exit_code == 0, output.output
    assert "the loads differ in load: 1 at a time, 2 at a time" in output.stdout
    assert "done s, p99" in output.stdout
    assert "%" in output.stdout
    assert str(tmp_path / "b.json") in (tmp_path / "both.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", 1, "--concurrency", 1), "--rate and --concurrency were both given: choose one"),
        (("--rate", 0), "--rate is 0: give a number above 0"),
        (("--steps", "2:x"), "num_inference_steps is '2:x': write values with weights above 0"),
        (("--model", "none"), "there is no model 'none'; the models of the server are: tiny"),
        (("--plot", "a.png"), "plots are SVG files"),
        (("--json", "nowhere/a.json"), "the folder nowhere does not exist"),
        (("--prompts", "nowhere.txt"), "nowhere.txt cannot be read: No such file or directory"),
        (("--compare", "pyproject.toml", "pyproject.toml"), "pyproject.toml is no result"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(bench: Bench, arguments: tuple[str | int, ...], message: str) -> None:
    output = bench(*arguments)
    assert output.exit_code == 2
    assert message in output.stderr


def test_ctrl_c_deletes_the_videos_that_have_not_ended(served: Serve, tmp_path: Path) -> None:
    arguments = ("bench", "--server", served.url, "--steps", 1000, "--warm-up", 0, "--concurrency", 2)
    process = subprocess.Popen(
        command(*map(str, arguments)), env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(videos_of(served)) == 2, "two videos")
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert videos_of(served) == []
