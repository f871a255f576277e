"""Texts to token ids: the tokenizer of a T5 encoder, or any other one with a `tokenizer.json`.

Shapes: B texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from models.t5.sentencepiece_model import CONTROL, UNIGRAM, USER_DEFINED, SentencePieceModel

_SPACE = "\u2581"  # how SentencePiece writes a space


class TextTokenizer:
    """Token ids of texts, cut and padded. For one thread."""

    def __init__(self, tokenizer: Tokenizer, pad_token: str) -> None:
        """Raise ValueError if `tokenizer` does not know `pad_token`."""
        pad_id = tokenizer.token_to_id(pad_token)
        if pad_id is None:
            raise ValueError(f"the padding token {pad_token!r} is not in the vocabulary")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.pad_token = pad_token
        self.pad_id = int(pad_id)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str], max_tokens: int, *, pad_to_max: bool = False) -> tuple[Tensor, Tensor]:
        """Token ids (B, L), and a mask (B, L) that is True at real tokens.

        Each text is cut to `max_tokens` tokens, the end token among them. L is the longest text, or with `pad_to_max`
        `max_tokens`.
        """
        self.tokenizer.enable_truncation(max_tokens)
        rows = [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts))]
        length = max_tokens if pad_to_max else max(map(len, rows), default=0)
        tokens = torch.full((len(rows), length), self.pad_id)
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[index, : len(row)] = True
        return tokens, mask


def add_special_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> None:
    """Let each of `tokens` be one token wherever a text holds it; new ones get new ids."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens if token not in known])


def t5_tokenizer(model: SentencePieceModel, num_extra_ids: int, special: Sequence[str], end: str) -> Tokenizer:
    """T5's tokenizer: unigram pieces, words from spaces, `end` after every text.

    `num_extra_ids` sentinels `<extra_id_0>`, ... follow the pieces in descending order. They and the texts in `special`
    are one token wherever a text holds them. Raises ValueError for a model of another algorithm.
    """
    if model.algorithm != UNIGRAM:
        raise ValueError(f"its model_type is {model.algorithm}; only {UNIGRAM} (unigram) is supported")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    sentinels = [f"<extra_id_{index}>" for index in reversed(range(num_extra_ids))]
    pieces += [(text, 0.0) for text in sentinels]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=model.unknown_id, byte_fallback=False))
    if model.charsmap:
        tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
    words = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    controls = [piece.text for piece in model.pieces if piece.kind == CONTROL]
    add_special_tokens(tokenizer, [*special, *controls, *sentinels])
    own = [piece.text for piece in model.pieces if piece.kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in own])
    end_id = tokenizer.token_to_id(end)
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", end], special_tokens=[(end, end_id)])
    return tokenizer
