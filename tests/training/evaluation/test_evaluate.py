import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint.load import load_checkpoint
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from training.evaluation.evaluate import Result, evaluate, main, report, shares, table
from training.evaluation.tasks import Task, class_tasks, text_tasks
from training.evaluation.vision import Attributes
from training.world.scenes import CLASS_NAMES, HELD_OUT, Scene

SCENE = Scene("red", "star", "moving up", "black", "small")
SEEN = Attributes("red", "star", "moving up", "black", "large", (0.0, -0.5), 1.0, 0.0, 0.9)
TASK = Task(SCENE, ("color", "shape", "motion", "size"), ("all", "seen combinations"), prompt="a small red star rising")


def test_the_list_of_prompts_is_fixed_and_has_both_kinds() -> None:
    tasks = text_tasks(200)
    assert tasks == text_tasks(200)
    held_out = [task for task in tasks if "held-out combinations" in task.groups]
    assert len(held_out) == 60
    for task in tasks:
        combination = (task.scene.color, task.scene.shape, task.scene.motion)
        assert (combination in HELD_OUT) == (task in held_out)
    assert sum("the grammar's words" in task.groups for task in tasks) == 100


def test_a_size_is_scored_where_the_prompt_says_one() -> None:
    for task in text_tasks(100):
        if "the grammar's words" in task.groups:
            assert ("size" in task.scored) == (f" {task.scene.size} " in str(task.prompt))


def test_every_class_is_asked_for() -> None:
    tasks = class_tasks(32)
    assert [task.label for task in tasks] == list(range(16)) * 2
    assert CLASS_NAMES[1] == "circle-right"
    assert (tasks[1].scene.shape, tasks[1].scene.motion) == ("circle", "moving right")


def test_marks_are_by_column_and_an_empty_video_is_wrong_in_all() -> None:
    right = {"color": True, "shape": True, "direction": True, "size": False}
    assert Result(TASK, SEEN, 1.0).right() == right
    assert Result(TASK, None, 1.0).right() == dict.fromkeys(right, False)


def test_a_motion_in_place_has_a_column_of_its_own() -> None:
    task = replace(TASK, scene=replace(SCENE, motion="growing"))
    assert Result(task, SEEN, 1.0).right()["other motion"] is False


def test_the_table_has_a_row_for_each_group() -> None:
    results = [Result(TASK, SEEN, 1.0), Result(replace(TASK, groups=("all", "held-out combinations")), None, 3.0)]
    assert shares(results) == {"color": 0.5, "shape": 0.5, "direction": 0.5, "size": 0.0}
    assert table(results).splitlines() == [
        "| | videos | color | shape | direction | size |",
        "|---|---|---|---|---|---|",
        "| all | 2 | 50.0 % | 50.0 % | 50.0 % | 0.0 % |",
        "| seen combinations | 1 | 100.0 % | 100.0 % | 100.0 % | 0.0 % |",
        "| held-out combinations | 1 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |",
    ]


def test_the_report_is_json_with_the_mistakes() -> None:
    summary = json.loads(json.dumps(report(tiny_card(), [Result(TASK, SEEN, 1.0), Result(TASK, None, 3.0)], CPU)))
    assert summary["seconds_worst"] == 3.0
    assert summary["wrong"][0]["seen"]["size"] == "large"
    assert summary["wrong"][1]["seen"] is None


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


def test_videos_are_made_by_the_checkpoint_and_kept(checkpoint_folder: Path, tmp_path: Path) -> None:
    results = evaluate(load_checkpoint(checkpoint_folder), tiny_card(), class_tasks(2), tmp_path)
    assert [result.task.label for result in results] == [0, 1]
    assert all(result.seconds > 0 for result in results)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000.mp4", "001.mp4"]


def test_the_command_writes_the_report(checkpoint_folder: Path, tmp_path: Path) -> None:
    main(
        [str(checkpoint_folder), "--number", "2", "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "r.json")]
    )
    summary = json.loads((tmp_path / "r.json").read_text())
    assert (summary["videos"], summary["num_inference_steps"], summary["sampler"]) == (2, 2, "ddim")
    assert set(summary["groups"]["all"]) == {"shape", "direction"}
