"""The arguments of a training script, as training outputs carry them: argparse, OmegaConf or a plain dict.

Their classes are never imported, so none of their code runs: `Inert` stands in for all of them and keeps the state that
the pickle gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Inert(dict[Any, Any]):
    """Stand-in for an object of training settings: keeps its pickled state and does nothing with it."""

    state: Any = None

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


SETTINGS_CLASSES: list[Any] = [
    (Inert, name)
    for name in (
        "argparse.Namespace",
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.str",
        "collections.defaultdict",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "typing.Any",
    )
]


def read_arguments(value: Any) -> dict[str, Any]:
    """The arguments as plain values; empty for anything that is not a set of named arguments."""
    plain = _plain(value)
    return plain if isinstance(plain, dict) else {}


def _plain(value: Any) -> Any:
    """OmegaConf keeps the values of a container under `_content`, of a leaf under `_val`; argparse adds no level."""
    if isinstance(value, Inert):
        state = value.state
        if not isinstance(state, Mapping):
            return None
        return _plain(next((state[name] for name in ("_content", "_val") if name in state), state))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
