"""The HTTP benchmark runs, and its results are complete."""

import json
from pathlib import Path

from benchmarks import http as benchmark


def test_a_small_run_writes_all_results(tmp_path: Path) -> None:
    output = tmp_path / "http.json"
    few = ("--clients", "8", "--seconds", "0.2", "--rounds", "1", "--streams", "4", "--requests", "80")
    benchmark.main([*few, "--output", str(output)])
    found = json.loads(output.read_text())
    assert found["post"]["p50_ms"] > 0
    for pace in ("as_told", "every_second"):
        assert min(found["polling"][pace][side]["p99_ms"] for side in ("ours", "bare")) > 0
        assert found["polling"][pace]["p50_ratio"] > 0
    assert 0.5 <= found["polling"]["as_told"]["pause_seconds"] <= 5
    assert found["polling"]["without_pause"]["cpu_ratio"] > 0
    assert found["streams"]["streams"] == 4
    assert len(found["memory"]["mib"]) == 6
