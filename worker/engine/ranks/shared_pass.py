"""A model's forward pass that a group of GPUs shares."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from models.adapters.row_adapters import RowAdapters
from models.conditioning import Condition
from models.transformer import Transformer
from worker.engine.passes.graphs import StepGraphs
from worker.engine.ranks.part import PassInputs
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.ranks.split import PassShape, Split, split_frames, split_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedPass:
    """Computes what its transformer computes.

    In deterministic mode the first pass of a shape is computed twice, by the leader alone and by the group. Later
    passes of that shape are shared only if both gave the same bits.
    """

    ranks: RankGroup
    transformer: Transformer
    deterministic: bool
    graphs: StepGraphs | None

    def divides(self, shape: PassShape) -> bool:
        """Whether the group shares passes of a shape. The leader computes others alone."""
        return self._split(shape) is not None

    def __call__(
        self, latents: Tensor, timesteps: Tensor, condition: Condition, adapters: RowAdapters | None = None
    ) -> Tensor:
        inputs = PassInputs.of(latents, timesteps, condition)
        split = self._split(inputs.shape)
        if split is None or adapters is not None:
            return self._compute_alone(inputs, adapters)
        if self.deterministic and inputs.shape not in self._exact:
            return self._compare(inputs, split)
        return self.ranks.run(self.transformer, inputs, split, self.graphs)

    @property
    def _exact(self) -> dict[PassShape, bool]:
        return self.ranks.exact.setdefault(self.transformer, {})

    def _split(self, shape: PassShape) -> Split | None:
        if self.deterministic and not self._exact.get(shape, True):
            return None
        by_frames = split_frames(shape, self.ranks.size) if self._may_split_frames(shape) else None
        return by_frames or split_rows(shape, self.ranks.size)

    def _may_split_frames(self, shape: PassShape) -> bool:
        """Frames are for long or large videos whose rows leave a device without work.

        They are never exact: the products of half of the tokens are rounded otherwise.
        """
        tokens = shape.rows * shape.frames * self.transformer.config.tokens_per_frame
        has_idle_rank = 0 < shape.rows < self.ranks.size
        is_large = tokens >= self.ranks.min_frame_tokens
        return not self.deterministic and has_idle_rank and is_large and self.transformer.can_split_frames

    def _compute_alone(self, inputs: PassInputs, adapters: RowAdapters | None = None) -> Tensor:
        outputs: Tensor = self.transformer(inputs.latents, inputs.timesteps, inputs.condition, adapters)
        return outputs

    def _compare(self, inputs: PassInputs, split: Split) -> Tensor:
        """The outputs of the leader alone, after the group has computed the same pass."""
        outputs = self._compute_alone(inputs)
        shared = self.ranks.run(self.transformer, inputs, split, self.graphs)
        is_exact = torch.equal(outputs.contiguous().view(torch.uint8), shared.contiguous().view(torch.uint8))
        self._exact[inputs.shape] = is_exact
        if not is_exact:
            logger.info(
                "passes of %d rows give other bits when they are shared: one device computes them", inputs.shape[0]
            )
        return outputs
