"""The condition of each row of the batch.

Shapes: B batch rows, L text tokens, E width of the text encoder's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import Conditioning, TransformerConfig


@dataclass(frozen=True)
class Condition:
    """Labels (B,) of a class model, or text (B, L, E) with its mask (B, L), True at real tokens; all None for neither.

    The null class of a class model is the label `num_classes`. Without a mask every text token is real.
    """

    labels: Tensor | None = None
    text: Tensor | None = None
    text_mask: Tensor | None = None

    @staticmethod
    def concat(conditions: list[Condition]) -> Condition:
        """The rows of all `conditions` one after the other; shorter texts are padded, and the mask says where."""
        if conditions[0].labels is not None:
            return Condition(labels=torch.cat([c.labels for c in conditions if c.labels is not None]))
        longest = max((c.text.shape[1] for c in conditions if c.text is not None), default=None)
        if longest is None:
            return Condition()
        padded = [c.padded(longest) for c in conditions]
        return Condition(
            text=torch.cat([c.text for c in padded if c.text is not None]),
            text_mask=torch.cat([c.mask() for c in padded]),
        )

    def padded(self, num_tokens: int) -> Condition:
        """The same with text of `num_tokens` tokens: the mask leaves out the ones that are added."""
        if self.text is None:
            return self
        missing = num_tokens - self.text.shape[1]
        return Condition(self.labels, pad(self.text, (0, 0, 0, missing)), pad(self.mask(), (0, missing)))

    def rows(self, part: slice) -> Condition:
        """Some of the rows."""
        return Condition(
            labels=None if self.labels is None else self.labels[part],
            text=None if self.text is None else self.text[part],
            text_mask=None if self.text_mask is None else self.text_mask[part],
        )

    def mask(self) -> Tensor:
        """The text mask (B, L), bool; all True where none is set."""
        assert self.text is not None
        if self.text_mask is None:
            return torch.ones(self.text.shape[:2], dtype=torch.bool, device=self.text.device)
        return self.text_mask.bool()

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Condition:
        """The same on `device`, the text in `dtype`."""
        return Condition(
            labels=None if self.labels is None else self.labels.to(device),
            text=None if self.text is None else self.text.to(device, dtype),
            text_mask=None if self.text_mask is None else self.text_mask.to(device),
        )

    def check(self, config: TransformerConfig, rows: int) -> None:
        """Raise ValueError unless this is a condition for `rows` rows of a model of `config`."""
        if config.conditioning is Conditioning.CLASS:
            self._check_labels(config.num_classes or 0, rows)
        elif self.labels is not None:
            raise ValueError(f"got class labels, but this checkpoint is conditioned on {config.conditioning.value}")
        if config.conditioning is Conditioning.TEXT:
            self._check_text(config.text_width or 0, rows)
        elif self.text is not None:
            raise ValueError(f"got text, but this checkpoint is conditioned on {config.conditioning.value}")

    def _check_labels(self, num_classes: int, rows: int) -> None:
        if self.labels is None or self.labels.shape != (rows,):
            got = "no labels" if self.labels is None else f"labels of shape {tuple(self.labels.shape)}"
            raise ValueError(f"got {got}: this checkpoint takes one class label per sample, shape ({rows},)")
        # Looking at values on another device would make the host wait for it.
        if self.labels.device.type == "cpu" and not ((self.labels >= 0) & (self.labels <= num_classes)).all():
            raise ValueError(
                f"got labels {self.labels.tolist()}: this checkpoint takes classes 0..{num_classes - 1}, "
                f"and {num_classes} for none"
            )

    def _check_text(self, text_width: int, rows: int) -> None:
        if self.text is None or self.text.ndim != 3 or self.text.shape[::2] != (rows, text_width):
            got = "no text" if self.text is None else f"text of shape {tuple(self.text.shape)}"
            raise ValueError(f"got {got}: this checkpoint takes encoded text of shape ({rows}, tokens, {text_width})")
        if self.text_mask is not None and self.text_mask.shape != self.text.shape[:2]:
            raise ValueError(
                f"got a text mask of shape {tuple(self.text_mask.shape)} for text of {tuple(self.text.shape[:2])}"
            )
