"""Prompts to conditions: the tokenizer and the T5 encoder of the text family.

Shapes: B prompts, L text tokens (of the longest prompt), E width of the encoder's output.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from torch.func import functional_call

from models.conditioning import Condition
from models.t5.caption import clean_caption as clean
from models.t5.encoder import T5Encoder
from models.t5.tokenizer import TextTokenizer
from models.without_numbers import without_numbers

_MAX_REMEMBERED = 64  # of 1 MB each with T5-XXL in bfloat16


class TextEncoder:
    """Tokenizer and T5 encoder, used as in the published text-to-video pipeline. For one thread.

    It remembers its last results: many requests share a negative prompt, and people repeat prompts with other seeds.
    """

    def __init__(
        self, tokenizer: TextTokenizer, encoder: T5Encoder, max_tokens: int, device: torch.device | None = None
    ) -> None:
        """Longer prompts are cut to `max_tokens` tokens: 120 in the published models.

        It computes on `device`, by default where its weights lie. Elsewhere it has copies of the weights there, during
        an encoding only.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}: it must be at least 1")
        self.tokenizer = tokenizer
        self.encoder = encoder.eval().requires_grad_(False)
        self.max_tokens = max_tokens
        self._device = device
        self._remembered: OrderedDict[tuple[tuple[str, ...], bool], Condition] = OrderedDict()

    @property
    def width(self) -> int:
        """E."""
        return self.encoder.config.d_model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.encoder.device if self._device is None else self._device

    @property
    def is_offloaded(self) -> bool:
        """Whether the weights lie elsewhere, and are copied for each encoding."""
        return self.device.type != self.encoder.device.type

    def encode(self, prompts: list[str], *, clean_caption: bool = False) -> Condition:
        """Encode prompts as text (B, L, E) in the encoder's dtype, with a mask (B, L) that is True at real tokens.

        Prompts are lower-cased and stripped, or cleaned as `models.t5.caption` does, and cut to `max_tokens` tokens.
        Shorter prompts are padded to the longest one, not to `max_tokens`: masked tokens cost time and change nothing.
        Raises ValueError for an empty list and for a prompt without tokens.
        """
        if not prompts:
            raise ValueError("got no prompt: at least one is needed (it may be the empty string)")
        return self._encode(prompts, clean_caption, pad_to_max=False)

    def encode_cut(self, prompt: str, num_tokens: int, *, clean_caption: bool = False) -> Condition:
        """Encode one prompt with padding and cut the result to `num_tokens`, all of them real: (1, num_tokens, E).

        The published text-to-video sampling encodes the negative prompt so, cut to the prompt's number of tokens.
        """
        encoded = self._encode([prompt], clean_caption, pad_to_max=True)
        assert encoded.text is not None
        text = encoded.text[:, :num_tokens]
        return Condition(text=text, text_mask=torch.ones(text.shape[:2], dtype=torch.bool, device=text.device))

    def _encode(self, prompts: list[str], clean_caption: bool, *, pad_to_max: bool) -> Condition:
        texts = [clean(prompt) if clean_caption else prompt.lower().strip() for prompt in prompts]
        key = (tuple(texts), pad_to_max)
        if key not in self._remembered:
            self._remembered[key] = self._compute(texts, pad_to_max)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return self._remembered[key]

    @torch.no_grad()
    def _compute(self, prompts: list[str], pad_to_max: bool) -> Condition:
        tokens, mask = self._tokenize(prompts, pad_to_max)
        if not mask.any(dim=1).all():
            raise ValueError(f"the tokenizer makes no token of {prompts[int(mask.any(dim=1).int().argmin())]!r}")
        device = self.device if self.is_offloaded else self.encoder.device
        tokens, mask = tokens.to(device), mask.to(device)
        return Condition(text=self._run(tokens, mask), text_mask=mask)

    def _run(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if not self.is_offloaded:
            text: Tensor = self.encoder(tokens, mask)
            return text
        weights = {name: weight.to(self.device) for name, weight in self.encoder.named_parameters()}
        # The call replaces the weights of a module for its time. Other threads may read those of the encoder.
        with without_numbers():
            empty = T5Encoder(self.encoder.config).eval()
        output: Tensor = functional_call(empty, weights, (tokens, mask))
        return output

    def _tokenize(self, prompts: list[str], pad_to_max: bool) -> tuple[Tensor, Tensor]:
        try:
            return self.tokenizer.encode(prompts, self.max_tokens, pad_to_max=pad_to_max)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the tokenizer's Rust code is not an Exception
            raise ValueError(f"the tokenizer fails on this prompt: {error}") from error
