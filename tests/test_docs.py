"""What README, ARCHITECTURE and the others say of routes, commands, settings and files is so."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic.fields import FieldInfo

from cli.main import app
from jobs.effective import variables
from jobs.settings import ClientSettings, Settings
from server.app import create_app
from server.body import Fields
from server.validation import CreateVideo, parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("training/*.md")])

# For people, and FastAPI's own, which does not describe itself.
SELF_DESCRIPTION = {"GET /", "GET /docs", "GET /openapi.json"}


def code_spans(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def commands() -> Iterator[list[str]]:
    """The lines in the shell examples of all pages that run `framedit`, in words."""
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("framedit "):
                    yield shlex.split(line, comments=True)[1:]


def test_every_route_is_in_the_readme_and_no_other() -> None:
    paths = create_app(Settings(redis_url="redis://127.0.0.1:1/0")).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    documented = {span for span in code_spans(README) if re.fullmatch(r"[A-Z]+ /\S*", span)}
    assert documented - SELF_DESCRIPTION == routes


def test_every_field_of_a_request_is_in_the_readme() -> None:
    assert set(CreateVideo.model_fields) <= code_spans(README)


def test_the_readme_s_requests_are_taken() -> None:
    bodies = [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", README, re.DOTALL)]
    assert {body["model"] for body in bodies} == {"demo-text", "demo-class"}
    for body in bodies:
        assert parse(CreateVideo, Fields(body, typed=True)).model == body["model"]


def test_every_command_is_in_the_readme_and_no_other() -> None:
    documented = {span.removeprefix("framedit ") for span in code_spans(README) if re.fullmatch(r"framedit \w+", span)}
    assert documented == set(typer.main.get_group(app).commands)


def test_the_options_in_the_examples_exist() -> None:
    examples = list(commands())
    assert examples
    for words in examples:
        command: Any = typer.main.get_group(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, command.name


def test_every_setting_is_documented_as_it_describes_itself() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in row) for row in re.findall(r"^\| `(\w+)` \|(.*?)\|(.*)\|$", text, re.M)]
    described = [
        (variables(kind, name)[0], default_in_words(field), (field.description or "").replace("|", "\\|"))
        for kind in (Settings, ClientSettings)
        for name, field in kind.model_fields.items()
    ]
    assert rows == described


def default_in_words(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`artifacts` in the data folder"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return "" if field.default in (None, "") else f"`{field.default}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    settings = {f"FRAMEDIT_{name.upper()}" for kind in (Settings, ClientSettings) for name in kind.model_fields}
    assert {name.removesuffix("_FILE") for name in re.findall(r"FRAMEDIT_\w+", text)} <= settings


def test_every_file_that_architecture_names_is_there() -> None:
    spans = code_spans((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    paths = {span for span in spans if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.py|\.toml|\.example)", span)}
    assert len(paths) > 20
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
