"""The benchmark of the engine: all sides do the work that they are said to, and its results can be read."""

import json
from pathlib import Path

import pytest

from benchmarks import engine as benchmark


def test_results_name_the_sides_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_FRAMES", 2)
    monkeypatch.setattr(benchmark, "IMAGE_SIZE", 64)
    output = tmp_path / "new" / "results.json"
    short = ["--size", "S", "--depth", "2", "--dtype", "float32", "--steps", "2", "--rounds", "1"]
    benchmark.main([*short, "--design", "matrix", "--requests", "1", "3", "--guided", "--output", str(output)])
    results = json.loads(output.read_text())
    assert results["machine"]["device"] == "cpu"
    assert [(row["requests"], row["rows"], row["steps"]) for row in results["rows"]] == [(1, 2, 2), (3, 6, 2)]
    for row in results["rows"]:
        assert min(row["alone_seconds"], row["bare_seconds"], row["engine_seconds"]) > 0
