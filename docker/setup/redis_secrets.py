"""Write what Redis and its clients need to know of its password into a folder: `redis_secrets.py FOLDER`.

The password is REDIS_PASSWORD; without it, the one that is there already, or a new one.
"""

import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

_CONFIGURATION = """\
requirepass "{password}"
# For the health check of the container, which knows no password: may ask whether Redis answers, and nothing else.
user health on nopass resetkeys resetchannels -@all +ping
bind * -::*
dir /data
# Every answered write is on the disk: what the API has accepted outlives a power cut.
appendonly yes
appendfsync always
save ""
# Below the limit of the container: what is above it is for buffers, and for the copy that a rewrite of the file takes.
maxmemory {max_memory_bytes}
maxmemory-policy noeviction
"""


def _max_memory_bytes() -> int:
    """Return 60 % of the container's memory limit, which REDIS_MEMORY gives as Docker does: 512m."""
    text = os.environ.get("REDIS_MEMORY", "512m").lower().removesuffix("b")
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not number.isdigit():
        sys.exit(f"REDIS_MEMORY is {text!r}; write it as 512m or 2g")
    return int(number) * unit * 6 // 10


def main() -> None:
    folder = Path(sys.argv[1])
    kept = folder / "redis_password"
    password = os.environ.get("REDIS_PASSWORD") or (kept.read_text() if kept.exists() else secrets.token_urlsafe(32))
    if '"' in password or "\\" in password or not password.isprintable():
        sys.exit("REDIS_PASSWORD: quotes, backslashes and control characters are not allowed in it")
    for name, content in {
        "redis_password": password,
        "redis_url": f"redis://:{quote(password, safe='')}@redis:6379/0",
        "redis.conf": _CONFIGURATION.format(password=password, max_memory_bytes=_max_memory_bytes()),
    }.items():
        # Readable by every user of the containers that mount the folder, which are those that need it.
        path = folder / name
        path.touch(mode=0o644)
        path.write_text(content)


if __name__ == "__main__":
    main()
