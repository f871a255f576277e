"""A mix: values that are drawn in given proportions."""

import random
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Mix:
    """Values of a field and the weight of each."""

    weights: dict[str, float]

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read `20:3,50:1`, or `20,50` for equal weights.

        Raises:
            ValueError: When a weight is not a number above 0. The message begins with `name`.
        """
        weights: dict[str, float] = {}
        for part in text.split(","):
            value, _, weight = part.strip().partition(":")
            try:
                weights[value] = float(weight or 1)
            except ValueError:
                weights[value] = 0
            if not value or not 0 < weights[value] < float("inf"):
                raise ValueError(f"{name} is {text!r}: write values with weights above 0, such as 20:3,50:1, or 20,50")
        return cls(weights)

    def draw(self, rng: random.Random) -> str:
        return rng.choices(list(self.weights), list(self.weights.values()))[0]
