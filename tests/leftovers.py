"""The check that tests leave nothing in the repository. A database in its `data/` would be that of `make serve`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

# What Python, pytest and the tools of `make check` keep, the environment, and what `make` builds.
CACHES = {".git", ".venv", "build", "__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}
# Of servers that may run here during the tests: one that was there before is not looked into.
OF_SERVERS = {"data", "downloads"}


class Leftovers:
    """A plugin that fails a run which leaves files in `root`, and names them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before = set(_paths(root))
        self._first_seen: dict[Path, str] = {}
        self._left: list[Path] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for path in set(self._root.iterdir()) - self._before:
            self._first_seen.setdefault(path, report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._left = sorted(set(_paths(self._root)) - self._before)
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for path in self._left:
            seen = f", first seen after {self._first_seen[path]}" if path in self._first_seen else ""
            terminalreporter.write_line(f"the tests left {path} in the repository{seen}", red=True)


def _paths(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name not in CACHES:
            yield path
            if path.is_dir() and path.name not in OF_SERVERS:
                yield from _paths(path)
