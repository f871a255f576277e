"""The cost of an attack for the server and its other clients, and the limits of that cost."""

from dataclasses import dataclass

import httpx

from tests.abuse.attacks import ATTACKS
from tests.abuse.server import Prober, Server

MAX_GROWTH_BYTES = 64 << 20
MAX_LIVEZ_SECONDS = 1.0
MAX_REQUEST_SECONDS = 2.0


@dataclass(frozen=True)
class Cost:
    attack: str
    growth_bytes: int
    livez_seconds: float
    request_seconds: float
    lost: int

    @property
    def is_fine(self) -> bool:
        return (
            self.growth_bytes <= MAX_GROWTH_BYTES
            and self.livez_seconds < MAX_LIVEZ_SECONDS
            and self.request_seconds < MAX_REQUEST_SECONDS
            and self.lost == 0
        )

    def __str__(self) -> str:
        growth = f"{self.growth_bytes / 2**20:+7.1f} MB"
        times = f"{self.livez_seconds:8.2f} s {self.request_seconds:8.2f} s"
        return f"{self.attack:<18} {growth} {times} {self.lost:6d}   {'ok' if self.is_fine else 'FAILED'}"


HEADER = f"{'attack':<18} {'memory':>10} {'/livez':>10} {'request':>10} {'lost':>6}"


def measure(server: Server, attack: str, scale: float) -> Cost:
    """Run one attack beside another client. Videos that were created before must exist afterwards."""
    body = {"model": "abused", "prompt": "kept", "n": 5}
    kept = [video["id"] for video in httpx.post(f"{server.url}/v1/videos", json=body).json()["data"]]
    before = server.resident_bytes()
    server.reset_peak()
    with Prober(server) as prober:
        ATTACKS[attack](server, scale)
    growth = server.resident_bytes("VmHWM") - before
    lost = sum(httpx.get(f"{server.url}/v1/videos/{video_id}").status_code != 200 for video_id in kept)
    return Cost(attack, growth, prober.longest["/livez"], prober.longest["/v1/videos"], lost)
