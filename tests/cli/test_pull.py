"""`framedit pull` against a server that speaks the API of the hub."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cards import read_card
from models.checkpoint.load import load_checkpoint
from tests.forked import framedit
from tests.hub import COMMIT, Hub, git_sha1, read_folder, serving_hub, sha256
from tests.models.conversion.sources import save_diffusers_folder

NAME = "model.safetensors"
MIB = 1 << 20
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
UNWANTED = {
    "pipeline.py": b"print('code')",
    "text_encoder/pytorch_model.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
    "../outside.json": b"{}",
    ".cache/hidden.json": b"{}",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"the same weights again",
}


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a repository of Latte-1's layout."""
    return read_folder(save_diffusers_folder(tmp_path_factory.mktemp("latte")))


@pytest.fixture
def hub(latte: dict[str, bytes]) -> Iterator[Hub]:
    with serving_hub("maxin-cn/Latte-1", latte | UNWANTED) as served:
        yield served


@pytest.fixture
def small_hub() -> Iterator[Hub]:
    with serving_hub("owner/small", {"config.json": b"{}", NAME: b"weights" * 100}) as served:
        yield served


def pull(hub: Hub, *arguments: str | Path, **env: str) -> tuple[int, str, str]:
    result = framedit("pull", *arguments, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1", **env)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def assert_one_sentence(stderr: str, *parts: str) -> None:
    last = [line for line in stderr.splitlines() if line.startswith("framedit: ")]
    assert len(last) == 1, stderr
    assert all(part in last[0] for part in parts), stderr


def test_a_folder_of_lattes_layout_becomes_a_checkpoint(hub: Hub, latte: dict[str, bytes], tmp_path: Path) -> None:
    files, checkpoint = tmp_path / "files", tmp_path / "checkpoints" / "latte"
    status, output, errors = pull(hub, "maxin-cn/Latte-1@main", checkpoint, "--to", files, "--json")
    assert status == 0, errors
    assert f"maxin-cn/Latte-1 at main is commit {COMMIT}" in errors
    assert read_card(checkpoint).conditioning == "text"
    assert load_checkpoint(checkpoint).text_encoder is not None
    downloaded = read_folder(files)
    manifest = json.loads(downloaded.pop("framedit-manifest.json"))
    assert downloaded == latte
    assert not (tmp_path / "outside.json").exists()
    assert (manifest["repository"], manifest["commit"]) == ("maxin-cn/Latte-1", COMMIT)
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: sha256(content) for name, content in latte.items()
    }
    assert json.loads(output)["checkpoint"] == str(checkpoint)


def test_without_conversion_the_files_alone_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    files = tmp_path / "files"
    status, output, errors = pull(hub, f"maxin-cn/Latte-1@{COMMIT}", "--to", files, "--no-convert")
    assert (status, output.strip()) == (0, str(files)), errors
    assert (files / WEIGHTS).is_file()


@pytest.fixture
def large_hub() -> Iterator[Hub]:
    """Weights that the library of the hub receives in three pieces of 10 MiB; the connection closes in each of them."""
    with serving_hub("owner/large", {NAME: bytes(range(256)) * (24 * 4096)}) as served:
        served.stops_after[NAME] = 12 * MIB
        yield served


def test_an_interrupted_download_continues_where_it_stopped(large_hub: Hub, tmp_path: Path) -> None:
    status, _, errors = pull(large_hub, "owner/large", "--to", tmp_path, "--no-convert")
    assert status == 0, errors
    assert large_hub.ranges == [(NAME, None), (NAME, f"bytes={10 * MIB}-"), (NAME, f"bytes={20 * MIB}-")]
    assert (tmp_path / NAME).read_bytes() == large_hub.files[NAME]


def test_a_second_command_continues_the_download_of_the_first(large_hub: Hub, tmp_path: Path) -> None:
    large_hub.goes_down = True
    status, _, errors = pull(large_hub, "owner/large", "--to", tmp_path, "--no-convert")
    assert status == 2
    assert_one_sentence(errors, "answered 503", "later")
    assert large_hub.ranges == [(NAME, None)]
    large_hub.down.clear()
    large_hub.goes_down = False
    status, _, errors = pull(large_hub, "owner/large", "--to", tmp_path, "--no-convert")
    assert status == 0, errors
    assert large_hub.ranges[1:] == [(NAME, f"bytes={10 * MIB}-"), (NAME, f"bytes={20 * MIB}-")]
    assert read_folder(tmp_path).keys() == {NAME, "framedit-manifest.json"}
    assert (tmp_path / NAME).read_bytes() == large_hub.files[NAME]


def test_a_changed_file_is_downloaded_again(small_hub: Hub, tmp_path: Path) -> None:
    for content in (b"", b"changed"):
        if content:
            (tmp_path / "config.json").write_bytes(content)
        status, _, errors = pull(small_hub, "owner/small", "--to", tmp_path, "--no-convert")
        assert status == 0, errors
    assert "config.json: differs" in errors
    assert git_sha1((tmp_path / "config.json").read_bytes()) == git_sha1(b"{}")


@pytest.mark.parametrize("name", [NAME, "config.json"])
def test_a_file_with_another_hash_is_refused_and_deleted(small_hub: Hub, tmp_path: Path, name: str) -> None:
    small_hub.damaged.add(name)
    status, _, errors = pull(small_hub, "owner/small", "--to", tmp_path, "--no-convert")
    assert status == 2
    assert_one_sentence(errors, name, "hash")
    assert not [path for path in tmp_path.iterdir() if name in path.name]
    assert not (tmp_path / "framedit-manifest.json").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("owner/small@v9", "owner/small has no revision v9"),
        ("owner/other", "no model owner/other"),
        ("small", "OWNER/NAME@REVISION"),
        ("owner/small@", "OWNER/NAME@REVISION"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(small_hub: Hub, tmp_path: Path, source: str, message: str) -> None:
    status, _, errors = pull(small_hub, source, "--to", tmp_path / "files", "--no-convert")
    assert status == 2
    assert_one_sentence(errors, message)
    assert not (tmp_path / "files").exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(small_hub: Hub, tmp_path: Path) -> None:
    small_hub.port = 9  # nothing listens there
    status, _, errors = pull(small_hub, "owner/small", "--to", tmp_path, "--no-convert")
    assert status == 2
    assert_one_sentence(errors, "cannot be reached", "HF_ENDPOINT")


def test_files_that_cannot_be_converted_are_kept(small_hub: Hub, tmp_path: Path) -> None:
    status, _, errors = pull(small_hub, "owner/small", tmp_path / "out", "--to", tmp_path / "files")
    assert status == 0, errors
    assert "not converted" in errors
    status, _, errors = pull(small_hub, "owner/small", tmp_path / "out", "--to", tmp_path / "files", "--convert")
    assert status == 2
    assert_one_sentence(errors, "cannot be converted")
    assert not (tmp_path / "out").exists()


def test_only_the_files_that_match_are_downloaded(small_hub: Hub, tmp_path: Path) -> None:
    status, _, errors = pull(small_hub, "owner/small", "--to", tmp_path, "--no-convert", "--only", "*.json")
    assert status == 0, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "framedit-manifest.json"]
    status, _, errors = pull(small_hub, "owner/small", "--to", tmp_path, "--no-convert", "--only", "*.pt")
    assert status == 2
    assert_one_sentence(errors, "matches *.pt")
