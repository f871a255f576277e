"""Kernels run on the CUDA device if there is one, else on the CPU in Triton's interpreter."""

from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    return f"kernels: {'in ' + torch.cuda.get_device_name() if torch.cuda.is_available() else 'interpreted'}"


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def dtype() -> torch.dtype:
    """The interpreter does not compute products in bfloat16."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


@pytest.fixture(scope="session")
def tolerance() -> float:
    return 1e-2 if torch.cuda.is_available() else 1e-5
