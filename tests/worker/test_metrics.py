import mmap

import torch

from jobs.telemetry.metrics import collect
from tests.worker.conftest import Bench
from worker.device import memory_bytes


def test_the_durations_of_a_video_are_published(bench: Bench) -> None:
    for guidance_scale in (2.0, 1.0):
        bench.queue(guidance_scale=guidance_scale)
        bench.run_until_empty()
    bench.context.meter.publish("w1", ttl_seconds=600)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in collect(bench.redis)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert found["framedit_videos_total", "tiny", "completed"] == 2
    assert found["framedit_queue_wait_seconds_count",] == 2
    assert found["framedit_video_seconds_count", "tiny"] == 2
    for stage in ("denoise", "decode", "encode"):
        assert found["framedit_stage_seconds_count", stage] == 2
        assert found["framedit_stage_seconds_sum", stage] > 0
    assert found["framedit_batch_rows_count",] == 8
    assert found["framedit_batch_rows_sum",] == 4 * 2 + 4 * 1
    steps = {key: value for key, value in found.items() if key[0] == "framedit_denoise_step_seconds_count"}
    assert sorted(steps.values()) == [4, 4]


def test_memory_on_the_cpu_is_the_resident_memory() -> None:
    size = 64 << 20
    before = memory_bytes(torch.device("cpu"))
    with mmap.mmap(-1, size) as held:  # an allocator could give memory that is resident already
        for start in range(0, size, mmap.PAGESIZE):
            held[start] = 1
        assert memory_bytes(torch.device("cpu")) > before + size // 2
