"""The state of a rate limit after one request, as response headers tell it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.errors import RateLimitedError


@dataclass(frozen=True)
class RateLimit:
    """A bucket of tokens that holds one minute's requests and fills in a minute.

    Attributes:
        limit: Requests per minute.
        remaining: Requests that would be accepted now.
        wait_seconds: Until the next request is accepted; 0 when this one was.
        refusal: The message of a refusal.
    """

    limit: int
    remaining: int
    wait_seconds: int
    refusal: str

    def check(self) -> None:
        """:raises RateLimitedError: when the request was above the limit."""
        if self.wait_seconds > 0:
            raise RateLimitedError(self.refusal, self.wait_seconds)

    @property
    def headers(self) -> Mapping[str, str]:
        """The three headers of the IETF draft up to its version 07, which most clients read."""
        reset_seconds = math.ceil((self.limit - self.remaining) * 60 / self.limit)
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(reset_seconds),
        }
