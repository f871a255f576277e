"""Whether the API may be published where it is asked to be."""

import ipaddress
from collections.abc import Mapping


def check_published(environment: Mapping[str, str]) -> None:
    """Raises SystemExit where a network could use the API without a key and nobody has said that this is meant."""
    address = environment.get("API_ADDRESS") or "127.0.0.1"
    if not ipaddress.ip_address(address).is_loopback and not environment.get("ALLOW_ANONYMOUS"):
        raise SystemExit(
            f"API_ADDRESS={address} publishes the API to a network, where everybody who reaches it could use it: set "
            "ALLOW_ANONYMOUS=false and make an API key (`docker compose run --rm api keys create`), or "
            "ALLOW_ANONYMOUS=true if that is meant"
        )
