"""NVIDIA AIPerf, whose command measures a server with the endpoint type `video_generation`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.interop.cases import MODEL, NUM_STEPS, PROMPT, URL, Case, run_cases

NUM_REQUESTS = 4
TIMEOUT_SECONDS = 300
# AIPerf counts the tokens of prompts. Its built-in tokenizer downloads its vocabulary.
TOKENIZER = Path(__file__).parents[2] / "checkpoints" / MODEL / "tokenizer"


def profile(*options: str) -> str:
    """Run a profile, and return its request latency. Raises `AssertionError` unless all requests succeed."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        prompts.write_text("".join(json.dumps({"text": PROMPT}) + "\n" for _ in range(NUM_REQUESTS)))
        command = [
            *(str(Path(sys.executable).with_name("aiperf")), "profile"),
            *("--url", URL, "--model", MODEL, "--endpoint-type", "video_generation"),
            *("--tokenizer", str(TOKENIZER), "--ui", "none", "--artifact-dir", str(Path(folder, "out"))),
            *("--input-file", str(prompts), "--custom-dataset-type", "single_turn"),
            *("--request-count", str(NUM_REQUESTS), "--extra-inputs", f"num_inference_steps:{NUM_STEPS}"),
            *options,
        ]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        exports = list(Path(folder).rglob("profile_export_aiperf.json"))
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-2000:]
        result = json.loads(exports[0].read_text())
    count = result["request_count"]["avg"]
    assert count == NUM_REQUESTS, result.get("error_summary")
    return f"{count:.0f} of {NUM_REQUESTS} requests, mean latency {result['request_latency']['avg']:.0f} ms"


if __name__ == "__main__":
    run_cases(
        [
            Case("profile, two at a time", lambda: profile("--concurrency", "2")),
            Case(
                "profile, at a rate, with downloads", lambda: profile("--request-rate", "4", "--download-video-content")
            ),
        ]
    )
