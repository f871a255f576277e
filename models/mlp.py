"""The two-layer perceptron of the blocks, of the timestep and of the text.

Shapes: I input channels, H hidden channels, O output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]

gelu_tanh: Activation = partial(F.gelu, approximate="tanh")


class Mlp(nn.Module):
    """(..., I) -> (..., O): `contract(activation(expand(x)))`."""

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: Activation = gelu_tanh) -> None:
        super().__init__()
        self.expand = nn.Linear(inputs, hidden)
        self.contract = nn.Linear(hidden, outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.contract(self.activation(self.expand(x)))
        return out
