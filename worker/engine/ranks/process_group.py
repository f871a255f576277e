"""The torch.distributed group of a leader and its ranks, which all run on one machine."""

import logging
import os
import threading
from datetime import timedelta

import torch
from torch import distributed as dist

logger = logging.getLogger(__name__)

_LEAVE_SECONDS = 5.0
# Processes of one machine find each other on its loopback interface. NVLink multicast needs privileges that containers
# lack, and the operations that are used here do not gain from it.
_ENVIRONMENT = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo", "NCCL_NVLS_ENABLE": "0"}


def join_process_group(rank: int, num_ranks: int, store: str, device: torch.device, timeout_seconds: float) -> None:
    """Wait until all processes of the group have joined. `store` is a file in a folder that only they can open."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    is_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=dist.FileStore(store, num_ranks),  # type: ignore[attr-defined]
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=timeout_seconds),
        device_id=device if is_cuda else None,
    )


def leave_process_group() -> None:
    """Leave the group, if there is one. NCCL waits for the other processes, of which one may be dead: not for long."""
    if not dist.is_initialized():
        return
    leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_SECONDS)
    if leaving.is_alive():
        logger.warning("the group of GPUs was not left in order")
