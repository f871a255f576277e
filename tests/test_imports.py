"""The imports of a process before it has work to do: a fresh interpreter's modules, by name."""

import json
import subprocess
import sys

import pytest

# Libraries that take seconds to import, and that no process needs.
HEAVY = {
    *("diffusers", "transformers", "sentencepiece", "google.protobuf", "huggingface_hub"),
    *("bs4", "ftfy"),
    *("torch._dynamo", "torch._inductor", "torchvision", "triton"),
    *("sympy", "scipy", "pandas", "networkx", "matplotlib"),
}
PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(imported: str) -> set[str]:
    code = f"import {imported}; {PRINT_MODULES}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("process", ["worker.main", "worker.library", "cli.local.convert"])
def test_a_process_with_models_imports_torch_and_nothing_as_heavy(process: str) -> None:
    modules = modules_after(process)
    assert "torch" in modules
    assert not HEAVY & modules


@pytest.mark.parametrize("process", ["cli.main", "server.app"])
def test_a_process_without_models_imports_no_torch(process: str) -> None:
    assert not (HEAVY | {"torch", "models", "numpy"}) & modules_after(process)
