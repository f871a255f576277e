"""Scripts that Redis runs: `.lua` files in a folder `lua` beside the Python file that calls them."""

from pathlib import Path

# The first line of a script that must run even when Redis has reached its memory limit: it ends or shrinks something.
ALLOW_OOM = "#!lua flags=allow-oom\n"


def read_lua(caller: str, *names: str) -> str:
    """Return the source of a script; `caller` is the `__file__` of the module that calls it.

    The last file is the script. Those before it define functions that the script calls.
    """
    folder = Path(caller).parent / "lua"
    return "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
