"""The command line as a user meets it: help, one-line errors, exit statuses. Each command is a process of its own."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import app
from jobs.cards import read_card, write_card
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card

REPOSITORY = Path(__file__).parents[2]
COMMANDS = (
    "serve",
    "server",
    "worker",
    "generate",
    "convert",
    "inspect",
    "keys",
    "config",
    "health",
    "submit",
    "fetch",
    "list",
    "models",
    "cancel",
    "delete",
)


def framedit(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FRAMEDIT_", "REDIS_URL"))}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=REPOSITORY,
        env=inherited | {"COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


def test_help_comes_at_once_and_names_every_command() -> None:
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        result = framedit("--help")
        taken.append(time.perf_counter() - started)
    assert result.returncode == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)
    assert min(taken) < 1.0


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from cli.main import app\n"
        f"for command in {COMMANDS}: assert CliRunner().invoke(app, [command, '--help']).exit_code == 0\n"
        "print(*sorted({'torch', 'fastapi', 'redis', 'rq', 'diffusers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_exit_statuses(command: str) -> None:
    result = framedit(command, "--help")
    assert result.returncode == 0
    assert "Exit status: 0 done" in result.stdout


def test_every_command_can_print_json() -> None:
    group: Any = typer.main.get_group(app)
    commands = [*group.commands.values(), *group.commands["keys"].commands.values()]
    silent = [command.name for command in commands if not hasattr(command, "commands") and not takes_json(command)]
    assert len(commands) > len(COMMANDS)
    assert silent == []


def takes_json(command: Any) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_version() -> None:
    assert framedit("--version").stdout.startswith("framedit ")


def test_no_command_is_wrong_use() -> None:
    assert framedit().returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--checkpoints", "nowhere"), "the checkpoints folder nowhere does not exist: name another with"),
        (("serve", "--checkpoints", "cli"), "the checkpoints folder cli holds no checkpoint folder (one with a card."),
        (("server",), "the server needs a Redis server: set REDIS_URL, or use `framedit serve`, which brings one"),
        (("worker",), "a worker needs a Redis server: set REDIS_URL, or use `framedit serve`, which brings one"),
        (("server", "--redis-url", "http://here"), "Redis URL must specify one of the following schemes"),
        (("generate", "x", "--checkpoints", "nowhere"), "the checkpoints folder nowhere does not exist"),
        (("inspect", "cli"), "cli is not a checkpoint folder: it has no config.json"),
    ],
)
def test_what_cannot_work_is_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    result = framedit(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("framedit: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_redis_that_does_not_answer_is_named_without_its_password(checkpoints: Path, tmp_path: Path) -> None:
    url = "redis://:secret@127.0.0.1:1/0?password=secret"
    result = framedit("serve", "--port", "0", "--data-dir", tmp_path, "--checkpoints", checkpoints, REDIS_URL=url)
    assert result.returncode == 2
    assert result.stderr.startswith("framedit: the Redis server at redis://127.0.0.1:1/0 does not answer: Error 111")
    assert "secret" not in result.stderr


def test_a_setting_that_is_no_value_is_named() -> None:
    result = framedit("serve", FRAMEDIT_MAX_ATTEMPTS="none")
    assert result.returncode == 2
    assert result.stderr.startswith("framedit: max_attempts is 'none' (environment: FRAMEDIT_MAX_ATTEMPTS): ")


def test_the_shell_can_complete_commands_and_options() -> None:
    words = {"_FRAMEDIT_COMPLETE": "complete_bash", "COMP_WORDS": "framedit sub", "COMP_CWORD": "1"}
    program = "import sys; sys.argv = ['framedit']; from cli.main import main; main()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAMEDIT_")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment | words, capture_output=True, text=True
    )
    assert result.stdout.split() == ["submit"]


def test_config_prints_what_is_in_force_and_no_secret() -> None:
    given = {"REDIS_URL": "redis://:hunter22@db/0", "FRAMEDIT_API_KEY": "fd_hunter22", "FRAMEDIT_PORT": "9000"}
    given["FRAMEDIT_WEBHOOK_SECRET"] = "hunter22" * 4
    result = framedit("config", **given)
    assert result.returncode == 0
    assert "hunter22" not in result.stdout
    assert re.search(r"^FRAMEDIT_PORT +9000 +environment$", result.stdout, re.MULTILINE)
    assert re.search(r"^FRAMEDIT_HOST +127.0.0.1 +default$", result.stdout, re.MULTILINE)
    printed = framedit("config", "--json", **given).stdout
    assert "hunter22" not in printed
    found = json.loads(printed)
    assert found["port"] == {"variable": "FRAMEDIT_PORT", "value": 9000, "source": "environment"}
    assert found["redis_url"]["value"] == "redis://:***@db/0"
    assert found["api_key"]["value"] == "(hidden)"


def test_what_is_not_well_is_status_1_and_says_why(tmp_path: Path) -> None:
    server = framedit("health", "server", "--json", FRAMEDIT_PORT="1")
    assert server.returncode == 1
    assert server.stderr.startswith("framedit: the server on 127.0.0.1:1 does not answer")
    found = json.loads(server.stdout)
    assert (found["process"], found["status"]) == ("server", "unwell")
    assert "does not answer" in found["reason"]
    worker = framedit("health", "worker", REDIS_URL=f"unix://{tmp_path}/none")
    assert (worker.returncode, worker.stdout) == (1, "")


def test_generate_refuses_as_the_api_does_before_it_loads_anything(checkpoints: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--checkpoints", checkpoints, "-o", tmp_path / "out.mp4")
    assert (
        "class_label is 'nowhere'; tiny has the classes 0..2: left" in framedit(*arguments, "--class", "nowhere").stderr
    )
    assert (
        "sampler is 'magic'; tiny has ddim, ddpm" in framedit(*arguments, "--class", "0", "--sampler", "magic").stderr
    )
    assert "no model 'x'; there are tiny" in framedit(*arguments, "--model", "x").stderr
    missing = framedit(*arguments[:-1], tmp_path / "nowhere" / "out.mp4", "--class", "0")
    assert f"the folder {tmp_path / 'nowhere'} does not exist" in missing.stderr
    folder = framedit(*arguments[:-1], tmp_path, "--class", "0")
    assert f"cannot write {tmp_path}: it is a folder" in folder.stderr
    assert list(tmp_path.iterdir()) == []


def test_generate_writes_the_video_and_nothing_else(checkpoints: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    options = ("--class", "up", "--seed", "3", "--steps", "2", "--frames", "2", "--fps", "5", "--guidance", "1")
    result = framedit("generate", "--checkpoints", checkpoints / "tiny", "-o", output, *options)
    video = decode_mp4(output)
    assert result.stdout == f"{output}  2 frames at 5 fps, tiny, seed 3\n"
    assert (video.frames.shape, video.fps) == ((2, 16, 16, 3), 5)
    assert list(tmp_path.iterdir()) == [output]


def test_inspect_prints_what_a_checkpoint_is(checkpoints: Path) -> None:
    result = framedit("inspect", checkpoints / "tiny")
    assert result.returncode == 0
    assert "class, 3 of them" in result.stdout


def test_a_card_that_promises_too_much_stops_everything(checkpoints: Path, tmp_path: Path) -> None:
    """The worker finds out; started again it would find the same, so `serve` ends."""
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    card = tiny_card().model_copy(update={"max_frames": 99})
    write_card(tmp_path / "checkpoints" / "tiny", card)
    assert read_card(tmp_path / "checkpoints" / "tiny").max_frames == 99
    result = framedit(
        "serve", "--port", "0", "--data-dir", tmp_path / "data", "--checkpoints", tmp_path / "checkpoints"
    )
    assert result.returncode == 2
    assert "does not fit its checkpoint: it says max_frames 99, more than 4" in result.stderr
    assert result.stderr.splitlines()[-1] == "framedit: the worker cannot run (see above)"
