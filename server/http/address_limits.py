"""Rate limits for clients without a valid API key: by their address, in the memory of this process."""

import ipaddress
import math
import time
from collections import OrderedDict

from jobs.access.rate_limits import RateLimit

# The least recently seen address is forgotten, so that addresses fill no memory.
_MAX_ADDRESSES = 10_000
_IPV6_PREFIX = 64  # one customer of a provider has at least that many addresses


class AddressLimiter:
    """A bucket of tokens for each address, which holds a minute's tokens and fills in a minute. For one event loop."""

    def __init__(self, per_minute: int | None, requests: str) -> None:
        """`requests` names the limited requests in messages."""
        self._per_minute = per_minute
        self._requests = requests
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def take(self, address: str) -> RateLimit | None:
        """Count one request, and return the state of the address's rate limit, None without one."""
        if self._per_minute is None:
            return None
        key, now = _network_of(address), time.monotonic()
        tokens, at = self._buckets.pop(key, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - at) * self._per_minute / 60)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        wait_seconds = 0 if allowed else math.ceil((1 - tokens) * 60 / self._per_minute)
        refusal = f"this address has sent its {self._per_minute} {self._requests} per minute; wait, or use an API key"
        return RateLimit(self._per_minute, max(0, int(self._buckets[key][0])), wait_seconds, refusal)


def _network_of(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], _IPV6_PREFIX), strict=False))
