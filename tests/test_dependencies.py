"""Every import is a declared dependency, and every declared dependency is imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SHIPPED = ("cli", "jobs", "models", "server", "training", "worker")
DEVELOPMENT = ("benchmarks", "docker", "examples", "tests")
# Used without an import of ours: by uvicorn, sentencepiece, the server of moto, as a command or as a plugin.
USED_OTHERWISE = {
    *("httptools", "uvloop"),
    "protobuf",
    *("flask", "flask-cors"),
    *("import-linter", "mkdocs-material", "mypy", "pytest-xdist", "ruff"),
}
# The CUDA builds of torch bring their own version of it; builds for CPUs never import the kernels outside the tests.
BROUGHT_BY_TORCH = {"triton"}
# Imported in environments of their own: ComfyUI's, and that of `make interop`.
OF_OTHER_ENVIRONMENTS = {"comfy", "litellm"}


def declared(*groups: Iterable[str]) -> set[str]:
    return {normalised(re.split(r"[\[<>=!~; ]", line)[0]) for group in groups for line in group}


def normalised(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def imported(folders: Iterable[str]) -> dict[str, set[str]]:
    """The foreign modules that the code in `folders` imports, and the distributions that provide each of them."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    providers = installed()
    files = {path.stem for path in paths} - providers.keys()  # scripts import the files beside them
    own = {*SHIPPED, *DEVELOPMENT, *sys.stdlib_module_names, *files}
    names = {name for path in paths for name in imports(path)} - own - OF_OTHER_ENVIRONMENTS
    return {name: set(map(normalised, providers.get(name, [name]))) for name in names}


@cache
def installed() -> Mapping[str, list[str]]:
    """The distributions that provide each module."""
    return packages_distributions()


@cache
def imports(path: Path) -> set[str]:
    """The top-level names of all imports in a file, those in functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def undeclared(folders: Iterable[str], *groups: Iterable[str]) -> list[str]:
    known = declared(*groups) | BROUGHT_BY_TORCH
    return sorted(name for name, providers in imported(folders).items() if not providers & known)


def test_every_import_is_declared() -> None:
    shipped = [PROJECT["dependencies"], *(lines for extra, lines in EXTRAS.items() if extra != "dev")]
    assert undeclared(SHIPPED, *shipped) == []
    assert undeclared(DEVELOPMENT, *shipped, EXTRAS["dev"]) == []


def test_the_server_needs_no_extra_but_those_of_storage_and_traces() -> None:
    assert undeclared(["server", "jobs"], PROJECT["dependencies"], EXTRAS["s3"], EXTRAS["tracing"]) == []


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_declared_dependency_is_used(extra: str | None) -> None:
    lines = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    folders = (*SHIPPED, *DEVELOPMENT) if extra == "dev" else SHIPPED
    used = set[str]().union(*imported(folders).values()) | USED_OTHERWISE
    assert sorted(declared(lines) - used) == []
