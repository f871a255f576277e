"""`framedit submit --file` against a real server."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.client.api_client import Client
from cli.main import app
from jobs.videos.store import VideoStore
from tests.jobs.every_role import EveryRole

Finish = Callable[[str, bytes], None]
Submit = Callable[..., Result]


@pytest.fixture
def submit(http: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Submit:
    monkeypatch.setenv("FRAMEDIT_SERVER", str(http.base_url))
    output = ("-o", str(tmp_path / "out.mp4"))
    return lambda *words: CliRunner().invoke(app, ["submit", "--file", *map(str, words), *output])


@pytest.fixture
def made(store: VideoStore, finish: Finish) -> Iterator[list[str]]:
    """The prompts of videos that a worker completes while the test runs; those with the word `bad` fail."""
    prompts: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            for record in store.unfinished():
                prompt = record.request.prompt or str(record.request.class_name)
                prompts.append(prompt)
                if "bad" in prompt:
                    EveryRole(store._redis).fail(record.id, "not_finite", "denoising diverged")
                else:
                    finish(record.id, prompt.encode())

    thread = threading.Thread(target=work)
    thread.start()
    yield prompts
    stop.set()
    thread.join()


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({"model": "tiny-text"} | row) + "\n" for row in rows))
    return path


def outputs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("out-*.mp4"))}


def test_every_row_becomes_a_file_with_its_number(submit: Submit, made: list[str], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", *({"prompt": f"star {number}"} for number in range(1, 11)))
    result = submit(rows, "--concurrency", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout == "10 rows: 10 completed, 0 created, 0 skipped, 0 failed\n"
    assert outputs(tmp_path) == {f"out-{number:02d}.mp4": f"star {number}" for number in range(1, 11)}


def test_a_second_run_creates_nothing_again(submit: Submit, made: list[str], store: VideoStore, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "one"}, {"prompt": "two"})
    assert submit(rows).exit_code == 0
    (tmp_path / "out-2.mp4").unlink()
    result = submit(rows, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert [row["status"] for row in summary["rows"]] == ["skipped", "completed"]
    assert sorted(made) == ["one", "two"], "the second file was downloaded again, not made again"
    assert outputs(tmp_path) == {"out-1.mp4": "one", "out-2.mp4": "two"}


def test_a_row_that_was_changed_is_made_again(submit: Submit, made: list[str], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "one"}, {"prompt": "two"})
    submit(rows)
    result = submit(write_rows(rows, {"prompt": "one"}, {"prompt": "three"}))
    assert "1 completed, 0 created, 1 skipped" in result.stdout
    assert outputs(tmp_path) == {"out-1.mp4": "one", "out-2.mp4": "three"}


def test_a_run_that_was_killed_before_it_knew_the_ids_creates_nothing_twice(
    submit: Submit, made: list[str], store: VideoStore, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "one"}, {"prompt": "two"})
    assert submit(rows, "--detach").exit_code == 0
    state = tmp_path / "out.state.jsonl"
    head = state.read_text().splitlines()[0]
    state.write_text(head + '\n{"number": 1, "finger')
    result = submit(rows)
    assert result.exit_code == 0, result.output
    assert sorted(made) == ["one", "two"]
    assert len(store.list(None, 10, "asc").records) == 2
    assert submit(rows).stdout == "2 rows: 0 completed, 0 created, 2 skipped, 0 failed\n"


def test_a_row_that_fails_fails_alone_and_is_tried_again(submit: Submit, made: list[str], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "good"}, {"prompt": "bad"})
    for tries in (1, 2):
        result = submit(rows)
        assert result.exit_code == 1
        assert "line 2: failed, not_finite: denoising diverged" in result.stderr
        assert "rows failed, in the lines 2 of" in result.stderr
        assert made.count("bad") == tries
    assert made.count("good") == 1


def test_a_table_and_a_list_of_prompts_are_read(submit: Submit, made: list[str], tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text('\ufeffprompt,seed,num_inference_steps\n"a star, ""red""",7,4\n\nmoon,,\n', encoding="utf-8")
    result = submit(table, "--model", "tiny-text", "--json")
    assert result.exit_code == 0, result.output
    assert sorted(made) == ['a star, "red"', "moon"]
    assert [row["line"] for row in json.loads(result.stdout)["rows"]] == [2, 4]
    made.clear()
    prompts = tmp_path / "rows.txt"
    prompts.write_text("first\n\nsecond\n")
    (tmp_path / "out.state.jsonl").unlink()
    assert submit(prompts, "--model", "tiny-text").exit_code == 0
    assert sorted(made) == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"\n', "line 3 of {path} is not a JSON object"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "b", "sed": 1}\n', "line 2 of {path}: unknown fields: sed"),
        ("a.jsonl", '{"prompt": "a", "seed": "x"}\n', "line 1 of {path}: seed is 'x'"),
        ("a.jsonl", '{"prompt": "a", "n": 2}\n', "line 1 of {path}: n is 2"),
        ("a.jsonl", '{"prompt": "a", "num_frames": 999}\n', "line 1 of {path}: num_frames is 999; tiny-text allows"),
        ("a.jsonl", '{"prompt": "a", "model": "huge"}\n', "line 1 of {path}: model is 'huge'; the server has"),
        ("a.csv", "prompt,seed\na,1\nb,2,3\n", "line 3 of {path} has 3 cells; its head names 2 columns"),
        ("a.csv", 'prompt\n"a\n', "line 2 of {path} is not CSV"),
        ("a.csv", "prompt,steps\na,4\n", "line 2 of {path}: unknown fields: steps"),
        ("a.jsonl", "\n", "{path} has no rows"),
    ],
)
def test_a_bad_row_is_named_by_its_line_before_anything_is_sent(
    submit: Submit, store: VideoStore, tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    result = submit(path, "--model", "tiny-text")
    assert result.exit_code == 2
    assert message.format(path=path) in result.stderr
    assert store.list(None, 10, "asc").records == []
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_options_of_one_video_are_refused(submit: Submit, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "one"})
    assert "--file takes no prompt" in submit(rows, "-n", 2).stderr
    assert submit(tmp_path / "missing.jsonl").exit_code == 2


def test_a_server_that_goes_away_ends_the_run_and_the_next_one_resumes(
    submit: Submit, made: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", *({"prompt": f"star {number}"} for number in range(1, 5)))
    with monkeypatch.context() as patch:

        def refuse(self: Client, video_id: str, path: Path) -> Path:
            raise self._unreachable(httpx.ConnectError("refused"))

        patch.setattr(Client, "download", refuse)
        result = submit(rows, "--concurrency", 2)
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert submit(rows).exit_code == 0
    assert sorted(made) == [f"star {number}" for number in range(1, 5)]


def test_the_state_of_another_server_is_refused(submit: Submit, made: list[str], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"prompt": "one"})
    (tmp_path / "out.state.jsonl").write_text('{"run": "abc", "server": "http://elsewhere"}\n')
    result = submit(rows)
    assert result.exit_code == 2
    assert "is of the server http://elsewhere" in result.stderr
