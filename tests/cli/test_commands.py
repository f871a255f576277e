"""Commands as processes: help, one-line errors, exit statuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from cli.main import app
from jobs.cards import read_card, write_card
from tests.forked import framedit
from tests.mp4 import decode_mp4
from tests.signing import Authority, read_manifest
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card

REPOSITORY = Path(__file__).parents[2]
COMMANDS = (
    "serve",
    "server",
    "worker",
    "generate",
    "pull",
    "convert",
    "calibrate",
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


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


def test_help_names_every_command_within_a_second() -> None:
    before = os.times()
    result = subprocess.run([sys.executable, "-m", "cli.main", "--help"], capture_output=True, text=True, check=True)
    after = os.times()
    assert all(f" {command} " in result.stdout for command in COMMANDS)
    # Processor time: other processes of a busy machine do not count.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


def test_help_imports_no_heavy_package() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from cli.main import app\n"
        f"for command in {COMMANDS}: assert CliRunner().invoke(app, [command, '--help']).exit_code == 0\n"
        "print(*sorted({'torch', 'fastapi', 'redis', 'rq', 'diffusers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_its_exit_statuses(command: str) -> None:
    result = framedit(command, "--help")
    assert result.returncode == 0
    assert "Exit status: 0 success" in result.stdout


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


def test_a_missing_command_is_wrong_usage() -> None:
    assert framedit().returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--checkpoints", "nowhere"), "the checkpoints folder nowhere does not exist: name another with"),
        (("serve", "--checkpoints", "cli"), "the checkpoints folder cli holds no checkpoint folder (one with a card."),
        (("server",), "the server needs a Redis server: set REDIS_URL, or use `framedit serve`, which starts one"),
        (("worker",), "the worker needs a Redis server: set REDIS_URL, or use `framedit serve`, which starts one"),
        (("server", "--redis-url", "http://here"), "Redis URL must specify one of the following schemes"),
        (("generate", "x", "--checkpoints", "nowhere"), "the checkpoints folder nowhere does not exist"),
        (("inspect", "cli"), "cli is not a checkpoint folder: it has no config.json"),
    ],
)
def test_an_error_of_the_user_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = framedit(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("framedit: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unreachable_redis_is_named_without_its_password(checkpoints: Path, tmp_path: Path) -> None:
    url = "redis://:secret@127.0.0.1:1/0?password=secret"
    result = framedit("serve", "--port", "0", "--data-dir", tmp_path, "--checkpoints", checkpoints, REDIS_URL=url)
    assert result.returncode == 2
    assert result.stderr.startswith("framedit: the Redis server at redis://127.0.0.1:1/0 does not answer: Error 111")
    assert "secret" not in result.stderr


def test_an_invalid_setting_is_named() -> None:
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


def test_config_prints_all_settings_and_no_secret() -> None:
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


def test_an_unhealthy_process_is_status_1_with_the_reason(tmp_path: Path) -> None:
    server = framedit("health", "server", "--json", FRAMEDIT_PORT="1")
    assert server.returncode == 1
    assert server.stderr.startswith("framedit: the server on 127.0.0.1:1 does not answer")
    found = json.loads(server.stdout)
    assert (found["process"], found["status"]) == ("server", "unwell")
    assert "does not answer" in found["reason"]
    worker = framedit("health", "worker", REDIS_URL=f"unix://{tmp_path}/none")
    assert (worker.returncode, worker.stdout) == (1, "")


def test_generate_validates_like_the_api_before_it_loads_a_model(checkpoints: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--checkpoints", checkpoints, "-o", tmp_path / "out.mp4")
    refusals = (
        (("--class", "nowhere"), "class_label is 'nowhere'; tiny has the classes 0..2: left"),
        (("--class", "0", "--sampler", "magic"), "sampler is 'magic'; tiny allows ddim, ddpm"),
        (("--model", "x"), "no model 'x'; available are tiny"),
    )
    for options, message in refusals:
        assert message in framedit(*arguments, *options).stderr
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


def test_a_speed_without_a_calibration_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    result = framedit(
        "generate",
        "--class",
        "up",
        "--speed",
        "fast",
        "-o",
        tmp_path / "video.mp4",
        FRAMEDIT_CHECKPOINTS=str(checkpoints),
    )
    assert result.returncode == 2
    assert "speed is 'fast'; tiny allows exact with the sampler 'ddim'" in result.stderr
    assert "`framedit calibrate tiny`" in result.stderr


def test_calibrate_writes_plans_that_generate_offers(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    where = {"FRAMEDIT_CHECKPOINTS": str(tmp_path / "checkpoints")}
    result = framedit("calibrate", "tiny", "--steps", "20", "--videos", "1", "--json", **where)
    assert result.returncode == 0, result.stderr
    assert "1 exact videos of 20 steps of ddim" in result.stderr
    plans = json.loads(result.stdout)
    assert [plan.model_dump() for plan in read_card(folder).speed_plans] == plans
    for plan in plans:
        assert plan["psnr_db"] > plan["rival_psnr_db"]
        options = ("--class", "up", "--speed", plan["speed"], "--steps", "20", "--json")
        made = framedit("generate", *options, "-o", tmp_path / "video.mp4", **where)
        assert made.returncode == 0, made.stderr
        request = json.loads(made.stdout)
        assert request["speed_plan"] == plan["rows"]
        assert (request["rows_computed"], request["rows_saved"]) == (
            sum(map(int, plan["rows"])),
            40 - sum(map(int, plan["rows"])),
        )
    assert framedit("calibrate", "other", **where).returncode == 2


def test_generate_writes_one_frame_as_png(checkpoints: Path, tmp_path: Path) -> None:
    options = ("--class", "up", "--seed", "3", "--steps", "1", "--frames", "1", "--guidance", "1")
    result = framedit("generate", "--checkpoints", checkpoints / "tiny", "-o", tmp_path / "out.mp4", *options)
    assert result.stdout == f"{tmp_path / 'out.png'}  image, tiny, seed 3\n"
    with Image.open(tmp_path / "out.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (16, 16))
    assert list(tmp_path.iterdir()) == [tmp_path / "out.png"]


@pytest.mark.parametrize(
    ("name", "options", "written", "magic"),
    [
        ("out.webm", (), "out.webm", b"\x1a\x45\xdf\xa3"),
        ("out.gif", ("--quality", "low"), "out.gif", b"GIF89a"),
        ("out.webp", (), "out.webp", b"RIFF"),
        ("out.zip", (), "out.zip", b"PK"),
        ("out.png", (), "out.zip", b"PK"),
        ("out.zip", ("--frames", "1"), "out.png", b"\x89PNG"),
    ],
)
def test_the_suffix_of_the_output_chooses_the_format(
    checkpoints: Path, tmp_path: Path, name: str, options: tuple[str, ...], written: str, magic: bytes
) -> None:
    settings = ("--class", "up", "--seed", "3", "--steps", "1", "--frames", "2", "--guidance", "1")
    framedit("generate", "--checkpoints", checkpoints / "tiny", "-o", tmp_path / name, *settings, *options)
    assert [path.name for path in tmp_path.iterdir()] == [written]
    content = (tmp_path / written).read_bytes()
    assert content.startswith(magic)
    assert b"trainedAlgorithmicMedia" in content


def test_an_unknown_suffix_is_refused_before_a_model_is_loaded(checkpoints: Path, tmp_path: Path) -> None:
    result = framedit("generate", "--checkpoints", checkpoints / "tiny", "-o", tmp_path / "out.avi", "--class", "up")
    assert result.returncode == 2
    assert "the suffix must be one of .mp4, .webm, .gif, .webp, .png, .zip" in result.stderr


def test_inspect_describes_a_checkpoint(checkpoints: Path) -> None:
    result = framedit("inspect", checkpoints / "tiny")
    assert result.returncode == 0
    assert "class, 3 of them" in result.stdout


def test_generate_signs_its_file(checkpoints: Path, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    arguments = ("generate", "--checkpoints", checkpoints / "tiny", "--class", "up", "--steps", "1", "--frames", "2")
    signing = {"FRAMEDIT_C2PA_CERT": str(certificate), "FRAMEDIT_C2PA_KEY": str(key)}
    result = framedit(*arguments, "-o", tmp_path / "out.mp4", **signing)
    assert result.returncode == 0, result.stderr
    state, manifest = read_manifest(tmp_path / "out.mp4", "video/mp4", authority.root_pem)
    assert state == "Trusted"
    assertions = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    assert assertions["org.framedit.generation"]["model"] == "tiny"


def test_a_signing_key_that_cannot_be_used_stops_serve(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("rubbish")
    (tmp_path / "chain.pem").write_text("rubbish")
    signing = {"FRAMEDIT_C2PA_CERT": str(tmp_path / "chain.pem"), "FRAMEDIT_C2PA_KEY": str(tmp_path / "key.pem")}
    data = tmp_path / "data"
    result = framedit("serve", "--port", "0", "--data-dir", data, "--checkpoints", checkpoints / "tiny", **signing)
    assert result.returncode == 2
    assert "which is not a private key in PEM" in result.stderr


def test_a_card_that_does_not_fit_its_checkpoint_stops_serve(checkpoints: Path, tmp_path: Path) -> None:
    """The worker exits with status 2, so `serve` does not restart it."""
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    card = tiny_card().model_copy(update={"max_frames": 99})
    write_card(tmp_path / "checkpoints" / "tiny", card)
    assert read_card(tmp_path / "checkpoints" / "tiny").max_frames == 99
    result = framedit(
        "serve", "--port", "0", "--data-dir", tmp_path / "data", "--checkpoints", tmp_path / "checkpoints"
    )
    assert result.returncode == 2
    assert "does not fit its checkpoint: it states 99 trained frames" in result.stderr
    assert result.stderr.splitlines()[-1] == "framedit: the worker cannot run (see above)"
