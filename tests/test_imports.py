"""The imports of a process before it has work to do: a fresh interpreter's modules, by name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Libraries that take seconds to import, and that no process needs.
HEAVY = {
    *("diffusers", "transformers", "sentencepiece", "google.protobuf", "huggingface_hub"),
    *("bs4", "ftfy"),
    *("torch._dynamo", "torch._inductor", "torchvision", "triton"),
    *("sympy", "scipy", "pandas", "networkx", "matplotlib"),
}
REPOSITORY = Path(__file__).parents[1]
LOAD = "from worker.library import load; load('checkpoints/demo-text')"
PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}; {PRINT_MODULES}"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("code", ["import worker.main", LOAD, "import cli.local.convert"])
def test_a_process_with_models_imports_torch_and_nothing_as_heavy(code: str) -> None:
    modules = modules_after(code)
    assert "torch" in modules
    assert not HEAVY & modules


@pytest.mark.parametrize("code", ["import cli.main", "import server.app"])
def test_a_process_without_models_imports_no_torch(code: str) -> None:
    assert not (HEAVY | {"torch", "models", "numpy"}) & modules_after(code)
