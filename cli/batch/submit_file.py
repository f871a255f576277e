"""`framedit submit --file`: all rows of a file, and one summary."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.batch.rows import read_rows
from cli.batch.run import BatchRun, RowResult
from cli.batch.state import BatchState
from cli.client.api_client import Client
from jobs.errors import FrameditError


class RowsFailedError(FrameditError):
    """Rows of a file failed."""

    code = "rows_failed"
    exit_status = 1


def submit_file(
    client: Client,
    path: Path,
    defaults: Mapping[str, Any],
    output: Path,
    concurrency: int,
    detach: bool,
    as_json: bool,
) -> None:
    """Make the videos of all rows, and print a summary.

    :raises InvalidRequestError: for a row that is not valid, before anything is sent.
    :raises RowsFailedError: when rows failed.
    """
    rows = read_rows(path, defaults, client.models())
    state_file = output.with_name(f"{output.stem}.state.jsonl")
    state = BatchState(state_file, client.server)
    results: list[RowResult] = []
    try:
        for result in BatchRun(client, state, output, concurrency, detach).results(rows):
            results.append(result)
            print(f"[{len(results)}/{len(rows)}] {_describe(result)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"the videos go on; the same command resumes from {state_file}", file=sys.stderr)
        raise
    results.sort(key=lambda result: result.row.number)
    counts = Counter(result.status for result in results)
    if as_json:
        print(json.dumps({"rows": [_row(result) for result in results], **counts}, indent=2, ensure_ascii=False))
    else:
        words = ", ".join(f"{counts[status]} {status}" for status in ("completed", "created", "skipped", "failed"))
        print(f"{len(rows)} rows: {words}")
    if counts["failed"]:
        lines = ", ".join(str(result.row.line) for result in results if result.status == "failed")
        raise RowsFailedError(f"rows failed, in the lines {lines} of {path}; the same command tries them again")


def _describe(result: RowResult) -> str:
    words = {"failed": result.error, "created": result.video_id}
    return f"line {result.row.line}: {result.status}, {words.get(result.status, result.file)}"


def _row(result: RowResult) -> dict[str, Any]:
    return {
        "row": result.row.number,
        "line": result.row.line,
        "status": result.status,
        "video_id": result.video_id or None,
        "file": result.file,
        "error": result.error,
    }
