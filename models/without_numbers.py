"""Modules that have the shapes of their weights, and no numbers or memory in them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@contextmanager
def without_numbers() -> Iterator[None]:
    """Make the modules of the block on the meta device."""
    with torch.device("meta"), _Uninitialized():
        yield


class _Uninitialized(TorchFunctionMode):
    """Leaves out `torch.nn.init`: on the meta device some of it imports PyTorch's compiler, which takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return (*args, *(kwargs or {}).values())[0]
        return function(*args, **(kwargs or {}))
