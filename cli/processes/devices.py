"""`framedit worker --devices`: a worker for each device, or for each group of devices of this machine, kept alive."""

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence

from cli.processes.supervisor import Program, Supervisor
from cli.processes.worker_process import worker_program
from jobs.settings import Settings
from worker.errors import StartupError

logger = logging.getLogger(__name__)

# A device whose worker dies this often in a row, each time within a minute of its start, counts as broken.
_DEATHS_BEFORE_REMOVAL = 5


def run_devices(settings: Settings, devices: str) -> None:
    """Run until SIGTERM or SIGINT.

    Raises `StartupError` for devices that do not exist, and `ChildFailedError` when the last one has been removed.
    """
    names = parse_devices(devices)
    groups = group_devices(names, settings.gpus_per_video)
    cpu_threads = max(1, (os.cpu_count() or 1) // max(1, names.count("cpu")))
    programs = [_program(settings, index, group, cpu_threads) for index, group in enumerate(groups)]
    logger.info("starting one worker on each of: %s", "; ".join(", ".join(group) for group in groups))
    Supervisor(programs).run(on_started=lambda: True)
    logger.info("stopped")


def parse_devices(devices: str) -> list[str]:
    """Parse a list of devices.

    `all` is every CUDA device, or the CPU if there is none; `0,1` are two CUDA devices; `cpu*2` is the CPU twice.

    Raises `StartupError` for anything else.
    """
    if devices == "all":
        return [f"cuda:{index}" for index in range(_count_cuda_devices())] or ["cpu"]
    names: list[str] = []
    for part in devices.split(","):
        cpu = re.fullmatch(r"cpu(?:\*([1-9]\d{0,2}))?", part.strip())
        cuda = re.fullmatch(r"(?:cuda:)?(\d{1,3})", part.strip())
        if cpu:
            names += ["cpu"] * int(cpu[1] or 1)
        elif cuda:
            names.append(f"cuda:{cuda[1]}")
        else:
            raise StartupError(f"devices is {devices!r}; allowed are all, GPU numbers (0,1) and cpu*N")
    doubles = {name for name in names if name != "cpu" and names.count(name) > 1}
    if doubles:
        raise StartupError(
            f"devices is {devices!r}: a GPU runs one worker, but {', '.join(sorted(doubles))} is listed twice"
        )
    return names


def group_devices(names: Sequence[str], size: int) -> list[list[str]]:
    """The devices of each worker. Raises `StartupError` for devices that cannot be grouped."""
    if len(names) % size:
        raise StartupError(f"{len(names)} devices ({', '.join(names)}) cannot be divided into groups of {size}")
    groups = [list(names[start : start + size]) for start in range(0, len(names), size)]
    if mixed := next((group for group in groups if 0 < group.count("cpu") < size), None):
        raise StartupError(f"{', '.join(mixed)} cannot share a video: a group has GPUs only, or CPUs only")
    return groups


def _program(settings: Settings, index: int, devices: Sequence[str], cpu_threads: int) -> Program:
    env = {"FRAMEDIT_DEVICE": devices[0]}
    if devices[0] == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        env["OMP_NUM_THREADS"] = str(cpu_threads)
    if len(devices) > 1 and devices[0] != "cpu":
        env = {"FRAMEDIT_DEVICE": "cuda:0", "CUDA_VISIBLE_DEVICES": ",".join(map(_visible_device, devices))}
    label = ", ".join(devices)
    prefix = f"{socket.gethostname()}-{index}-{devices[0].replace(':', '')}-"
    program = worker_program(f"worker on {label} ({index})", prefix, settings, env)
    program.deaths_before_removal = _DEATHS_BEFORE_REMOVAL
    return program


def _visible_device(name: str) -> str:
    """The name of a device in CUDA_VISIBLE_DEVICES, of which this process may see a part only."""
    index = int(name.removeprefix("cuda:"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(index)
    allowed = [part.strip() for part in visible.split(",")]
    if index >= len(allowed):
        raise StartupError(f"device {name!r} is not among the {len(allowed)} of CUDA_VISIBLE_DEVICES")
    return allowed[index]


def _count_cuda_devices() -> int:
    """Import torch in a child process: it would cost this process, which only supervises, hundreds of megabytes."""
    command = [sys.executable, "-P", "-c", "import torch; print(torch.cuda.device_count())"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise StartupError(f"PyTorch cannot list the CUDA devices: {answer.stderr.strip().splitlines()[-1:]}")
    return int(answer.stdout)
