"""What all commands share: how they say what went wrong, and the options that several of them have."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

EPILOG = (
    "Every setting is also an environment variable FRAMEDIT_<NAME>. "
    "Exit status: 0 done, 1 failed, 2 wrong use or a configuration that cannot work, 130 stopped by Ctrl-C."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """An error that the user can do something about is a line on stderr and a status, not a traceback.

    The status is 2, unless the error has an `exit_status` of its own.
    """
    from jobs.errors import FrameditError

    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (FrameditError, ValueError, FileExistsError) as error:
        typer.echo(f"framedit: {error}", err=True)
        sys.exit(getattr(error, "exit_status", 2))
