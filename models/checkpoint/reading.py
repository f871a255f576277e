"""Errors of the libraries that read checkpoints, as one sentence with the path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The message of safetensors about a file that is shorter than its header announces.
_CUT_OFF = ("HeaderTooLarge", "IncompleteBuffer", "MetadataIncompleteBuffer", "file not fully covered")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises while it reads `path` into a ValueError of one sentence.

    Rust libraries (tokenizers, safetensors) raise panics, which are no `Exception`. Interrupts pass through.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(f"cannot read {path}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """The first line of the message; libraries add advice below it."""
    if isinstance(error, EOFError):
        return "the file is cut off"
    first, *_ = str(error).strip().splitlines() or [""]
    if any(words in first for words in _CUT_OFF):
        return f"the file is cut off or is not of its format ({first})"
    return first or type(error).__name__
