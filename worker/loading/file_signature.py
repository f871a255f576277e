"""Whether files have changed between two looks, without reading them."""

from collections.abc import Iterable
from pathlib import Path

# Path, size and time of change of each file.
Signature = frozenset[tuple[Path, int, int]]


def signature_of(paths: Iterable[Path]) -> Signature:
    """Return the signature of the files that exist."""
    files = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # it does not exist, or was removed meanwhile
            continue
        files.append((path, status.st_size, status.st_mtime_ns))
    return frozenset(files)
