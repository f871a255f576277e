"""Check that the API is not published to a network without API keys by accident."""

import ipaddress
from collections.abc import Mapping


def check_published(environment: Mapping[str, str]) -> None:
    """Raise SystemExit if the address opens the API to a network without a key and no setting permits that."""
    address = environment.get("API_ADDRESS") or "127.0.0.1"
    if not ipaddress.ip_address(address).is_loopback and not environment.get("ALLOW_ANONYMOUS"):
        raise SystemExit(
            f"API_ADDRESS={address} publishes the API to a network, where anybody could use it: set "
            "ALLOW_ANONYMOUS=false and make an API key (`docker compose run --rm api keys create`), or "
            "ALLOW_ANONYMOUS=true if you want that"
        )
