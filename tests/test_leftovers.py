"""A run whose tests leave files in the repository fails."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROGRAM = """
import sys
from pathlib import Path
import pytest
from tests.leftovers import Leftovers
sys.exit(pytest.main(["-q", "-c", "pytest.ini"], plugins=[Leftovers(Path())]))
"""


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider")
    (folder / "kept").mkdir()
    (folder / "test_one.py").write_text(f"from pathlib import Path\n\ndef test_one() -> None:\n    {line}\n")
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )


@pytest.mark.parametrize("line", ["assert True", "(Path('kept') / '__pycache__').mkdir()"])
def test_a_run_that_leaves_nothing_or_a_cache_passes(tmp_path: Path, line: str) -> None:
    assert run(tmp_path, line).returncode == 0


def test_a_new_folder_fails_the_run_and_is_named_with_its_test(tmp_path: Path) -> None:
    result = run(tmp_path, "Path('data').mkdir()")
    assert result.returncode == 1
    assert "the tests left data in the repository, first seen after test_one.py::test_one" in result.stdout


def test_a_new_file_in_a_folder_fails_the_run(tmp_path: Path) -> None:
    result = run(tmp_path, "(Path('kept') / 'new').touch()")
    assert result.returncode == 1
    assert "the tests left kept/new in the repository" in result.stdout
