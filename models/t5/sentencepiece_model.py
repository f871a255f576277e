"""The pieces in a SentencePiece model file (`spiece.model`).

Such a file is one message in the wire format of protocol buffers, so few fields of it are needed that they are read
here: https://protobuf.dev/programming-guides/encoding/ describes the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

UNIGRAM = 1
CONTROL, USER_DEFINED = 3, 4  # kinds of pieces

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True)
class Piece:
    """A token: its text, its log probability, and its kind."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """A piece's index is its token id. `charsmap` holds the rules of Unicode normalisation, if there are any."""

    pieces: tuple[Piece, ...]
    algorithm: int
    unknown_id: int
    charsmap: bytes


def parse_sentencepiece_model(content: bytes) -> SentencePieceModel:
    """Read the content of a model file. Raises ValueError if it is none."""
    pieces: list[Piece] = []
    algorithm, unknown_id, charsmap = UNIGRAM, 0, b""
    for number, value in _read_fields(content):
        if number == 1:
            pieces.append(_parse_piece(_message(value)))
        elif number == 2:
            trainer = dict(_read_fields(_message(value)))
            algorithm, unknown_id = _whole(trainer.get(3, UNIGRAM)), _whole(trainer.get(40, 0))
        elif number == 3:
            charsmap = _message(dict(_read_fields(_message(value))).get(2, b""))
    if not pieces:
        raise ValueError("it is not a SentencePiece model: it holds no pieces")
    return SentencePieceModel(tuple(pieces), algorithm, unknown_id, charsmap)


def _parse_piece(content: bytes) -> Piece:
    fields = dict(_read_fields(content))
    (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
    return Piece(_message(fields.get(1, b"")).decode(), score, _whole(fields.get(3, 1)))


def _read_fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message; fixed numbers as bytes."""
    position = 0
    while position < len(content):
        key, position = _read_varint(content, position)
        if key & 7 == _VARINT:
            value, position = _read_varint(content, position)
            yield key >> 3, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
        if key & 7 == _BYTES:
            length, position = _read_varint(content, position)
        if length is None or position + length > len(content):
            raise ValueError("it is not a SentencePiece model, or it is cut off")
        yield key >> 3, content[position : position + length]
        position += length


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, least significant first, and the position after it."""
    value = 0
    for index, byte in enumerate(content[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("it is not a SentencePiece model, or it is cut off")


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("it is not a SentencePiece model: a field has another type")
    return value


def _whole(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("it is not a SentencePiece model: a field has another type")
    return value
