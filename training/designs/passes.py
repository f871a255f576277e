"""Time and memory of one pass of each design, by the number of frames."""

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from models.conditioning import Condition
from models.transformer import Transformer
from training.designs.designs import DESIGNS
from training.loop import pick_device
from training.stages.initialize import initialize

FRAMES = (16, 32, 64, 128)
ROWS = {"cpu": (1,), "cuda": (1, 16)}
TEXT_TOKENS = 30
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 65536


@dataclass(frozen=True)
class Pass:
    """One measurement: the median time of a pass, and the memory that it needs beyond the weights."""

    design: str
    device: str
    rows: int
    frames: int
    milliseconds: float
    megabytes: float


@torch.no_grad()
def measure_passes(device: torch.device, repeats: int, frames: Sequence[int] = FRAMES) -> list[Pass]:
    """Every design, number of rows and number of frames. float32 on CPUs; bfloat16 in a CUDA graph on GPUs."""
    measure = _measure_cuda if device.type == "cuda" else _measure_cpu
    measured = []
    for name, design in DESIGNS.items():
        for count in frames:
            model = Transformer(replace(design.config, num_frames=count))
            initialize(model)
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            model = model.to(device, dtype).eval()
            for rows in ROWS[device.type]:
                config = design.config
                shape = (rows, count, config.latent_channels, config.latent_size, config.latent_size)
                latents, timesteps = (
                    torch.randn(shape, device=device, dtype=dtype),
                    torch.full((rows,), 500.0).to(device),
                )
                text = torch.randn(rows, TEXT_TOKENS, config.text_width or 0, device=device, dtype=dtype)
                condition = Condition(text=text)
                run = _pass_of(model, latents, timesteps, condition)
                milliseconds, megabytes = measure(run, repeats)
                measured.append(Pass(name, device.type, rows, count, milliseconds, megabytes))
                print(measured[-1], flush=True)
    return measured


def _pass_of(model: Transformer, latents: torch.Tensor, timesteps: torch.Tensor, text: Condition) -> Callable[[], None]:
    def run() -> None:
        model(latents, timesteps, text)

    return run


def _measure_cuda(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        megabytes = (torch.cuda.max_memory_allocated() - before) / 1e6
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(repeats):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2], megabytes


def _measure_cpu(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    # Freed memory goes back to the system at once, so that the peak is that of one pass.
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    run()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_megabytes("VmRSS")
    run()
    megabytes = _resident_megabytes("VmHWM") - before
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)[len(times) // 2], megabytes


def _resident_megabytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1000
    raise OSError(f"/proc/self/status has no {field}: measure on Linux")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=4, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("build/designs/passes.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    measured = measure_passes(pick_device(options.device), options.repeats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(each) for each in measured], indent=1) + "\n")


if __name__ == "__main__":
    main()
