"""Completion in real shells: the typed text, a tab, and the completed line."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(_FRAMEDIT_COMPLETE=source_bash framedit)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u; eval "$(_FRAMEDIT_COMPLETE=source_zsh framedit)"'),
    "fish": (["-N", "-i"], "_FRAMEDIT_COMPLETE=source_fish framedit | source"),
}
CLEAR_LINE = "\x15"


class Terminal:
    """A shell at a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = b""

    def type(self, text: str) -> None:
        self._shown = b""
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text.encode() in self._read(), f"{text!r} on the terminal")

    def _read(self) -> bytes:
        while select.select([self._descriptor], [], [], 0)[0]:
            new = os.read(self._descriptor, 4096)
            self._shown += new
            if b"\x1b[c" in new or b"\x1b[0c" in new:  # fish asks what terminal this is
                os.write(self._descriptor, b"\x1b[?62;c")
        return self._shown


@contextmanager
def at_a_terminal(shell: str, home: Path) -> Iterator[Terminal]:
    program = home / "framedit"
    program.write_text(f"#!{sys.executable}\nfrom cli.main import main\nmain()\n")
    program.chmod(0o755)
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"HOME": str(home), "TERM": "xterm", "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    ours, its = os.openpty()
    command = ["setsid", "--ctty", shell, *SHELLS[shell][0]]
    process = subprocess.Popen(command, env=env, cwd=home, stdin=its, stdout=its, stderr=its)
    try:
        yield Terminal(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_completes_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    with at_a_terminal(shell, tmp_path) as terminal:
        terminal.type(f"{SHELLS[shell][1]}; echo rea''dy\n")  # in two parts, for the shell shows what is typed
        terminal.wait_for("ready")
        for typed, completed in (
            ("framedit canc", "cancel"),
            ("framedit keys re", "revoke"),
            ("framedit submit --neg", "--negative-prompt"),
            ("framedit health ser", "server"),
            ("framedit submit --priority no", "normal"),
        ):
            terminal.type(f"{CLEAR_LINE}{typed}\t")
            rest = completed.removeprefix(typed.split()[-1])
            assert rest not in typed
            terminal.wait_for(rest)  # a shell may draw the word anew or only what is new of it
