"""CUDA graphs: a step that the device has done once is replayed without the host launching its kernels one by one.

A graph is captured when inputs of the same shapes come for the second time; the first time, libraries and compilers set
themselves up. Replays give what the uncaptured step gives, bit for bit.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.device import capture_lock, is_out_of_memory

logger = logging.getLogger(__name__)

Inputs = Sequence[Tensor | None]
Outputs = tuple[Tensor, ...]
# The least recently used graph goes when there are more. Each takes some megabytes beside the shared pool.
MAX_GRAPHS = 32
# A step that could not be captured runs so many times without a graph before it is tried again.
_RUNS_BEFORE_RETRY = 100


class StepGraphs:
    """The graphs of one model's steps, by the shapes of their inputs. They share one memory pool.

    It holds no reference to the model, so that its owner can drop both together.
    """

    def __init__(self, max_graphs: int = MAX_GRAPHS) -> None:
        self._max_graphs = max_graphs
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._runs_left: dict[Hashable, int] = {}  # without a graph, before the next attempt to capture
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, step: Callable[[Inputs], Outputs], inputs: Inputs) -> Outputs:
        """`step(inputs)`, from a graph if there is one.

        `step` is a function of the tensors in `inputs` and of nothing else that changes while their shapes stay the
        same. The caller replaces its tensors and never writes to them, so that equal objects hold equal numbers.
        """
        key = tuple(None if part is None else (part.shape, part.dtype) for part in inputs)
        if key in self._graphs:
            self._graphs.move_to_end(key)
        elif not self._capture(key, step, inputs):
            return step(inputs)
        return self._graphs[key].replay(inputs)

    def clear(self) -> bool:
        """Drop all graphs and give their memory back to PyTorch. Returns whether there were any."""
        had_graphs = bool(self._graphs)
        self._graphs.clear()
        self._pool = None
        return had_graphs

    def _capture(self, key: Hashable, step: Callable[[Inputs], Outputs], inputs: Inputs) -> bool:
        """Capture the step if it is its turn. Returns whether there is a graph now."""
        runs_left = self._runs_left.get(key, 1)
        if runs_left > 0:
            self._runs_left[key] = runs_left - 1
            return False
        try:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._graphs[key] = _Graph(step, inputs, self._pool)
        except Exception as error:  # the uncaptured step that follows raises again if the device is lost
            reason = "no memory" if is_out_of_memory(error) else repr(error)
            logger.warning("a step runs without its CUDA graph, which could not be captured: %s", reason)
            self._runs_left[key] = _RUNS_BEFORE_RETRY
            return False
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return True


class _Graph:
    def __init__(self, step: Callable[[Inputs], Outputs], inputs: Inputs, pool: Any) -> None:
        self._inputs = [None if part is None else part.clone() for part in inputs]
        self._copied = [_reference(part) for part in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads use the device meanwhile: the mode forbids the unsafe calls in this thread alone.
        with capture_lock, torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = step(self._inputs)

    def replay(self, inputs: Inputs) -> Outputs:
        """The outputs are the caller's: later replays do not change them."""
        for index, (mine, given) in enumerate(zip(self._inputs, inputs, strict=True)):
            if mine is not None and given is not None and self._copied[index]() is not given:
                mine.copy_(given, non_blocking=True)
                self._copied[index] = _reference(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


def _reference(tensor: Tensor | None) -> Callable[[], Tensor | None]:
    """Return the tensor while another reference keeps it alive."""
    return (lambda: None) if tensor is None else weakref.ref(tensor)
