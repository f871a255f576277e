"""The documentation agrees with the code: routes, fields, commands, options, settings, links, files."""

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
from jobs.settings import ClientSettings, Settings
from jobs.settings_sources import variables
from server.app import create_app
from server.request_body import Fields
from server.request_fields import parse
from server.wire import CreateVideo

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in ("", "docs", "examples", "training") for path in (ROOT / folder).glob("*.md"))
# The width that prose is wrapped at. A table row, a link or a command cannot be wrapped.
MAX_LINE_CHARACTERS = 100

# Routes that the OpenAPI document leaves out.
SELF_DESCRIPTION = {"GET /", "GET /docs", "GET /openapi.json"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_spans(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def code_blocks(language: str) -> Iterator[str]:
    """The examples in one language on all pages."""
    for page in PAGES:
        yield from re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> Iterator[list[str]]:
    """The lines in the shell examples of all pages that run `framedit`, split into words."""
    for block in code_blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("framedit "):
                yield shlex.split(line, comments=True)[1:]


def test_the_api_page_lists_every_route_and_no_other() -> None:
    paths = create_app(Settings(redis_url="redis://127.0.0.1:1/0")).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    documented = {span for span in code_spans(read("docs/api.md")) if re.fullmatch(r"[A-Z]+ /\S*", span)}
    assert documented - SELF_DESCRIPTION == routes


def test_the_api_page_describes_every_field_of_a_request() -> None:
    assert set(CreateVideo.model_fields) <= code_spans(read("docs/api.md"))


def test_the_requests_in_the_examples_are_valid() -> None:
    bodies = [json.loads(body) for block in code_blocks("bash") for body in re.findall(r"-d '(\{.*?\})'", block, re.S)]
    assert {body["model"] for body in bodies} == {"demo-text", "demo-class"}
    for body in bodies:
        assert parse(CreateVideo, Fields(body, typed=True)).model == body["model"]


def test_the_command_line_page_lists_every_command_and_no_other() -> None:
    spans = code_spans(read("docs/cli.md"))
    documented = {span.removeprefix("framedit ") for span in spans if re.fullmatch(r"framedit \w+", span)}
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
    text = read("docs/settings.md")
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


def is_there(page: Path, target: str) -> bool:
    """Whether the file that a link names exists and, where the link has an anchor, a heading with that anchor."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in anchors(path.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_prose_of_a_page_is_wrapped(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith(("|", "[", "!"))]
    assert [line for line in lines if len(line) > MAX_LINE_CHARACTERS] == []


def test_every_page_is_on_the_site() -> None:
    navigation = read("mkdocs.yml")
    assert [path.name for path in ROOT.glob("docs/*.md") if f": {path.name}\n" not in navigation] == []


def test_the_python_examples_compile() -> None:
    examples = list(code_blocks("python"))
    assert examples
    for example in examples:
        compile(example, "example", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)", text) if "://" not in target]
    assert [target for target in targets if not is_there(page, target)] == []
    settings = {
        variable
        for kind in (Settings, ClientSettings)
        for name in kind.model_fields
        for variable in variables(kind, name)
    }
    assert {name.removesuffix("_FILE") for name in re.findall(r"FRAMEDIT_\w+", text)} <= settings


def test_every_file_that_architecture_names_is_there() -> None:
    spans = code_spans(read("ARCHITECTURE.md"))
    paths = {span for span in spans if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.py|\.toml|\.example)", span)}
    assert len(paths) > 20
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
