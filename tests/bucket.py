"""A real S3 server over HTTP, of moto's, that can be stopped and started at the same address."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer


class BucketServer:
    """Its objects outlive `stop`, as a real store's objects outlive its outage."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        httpx.post(f"{self.url}/moto-api/reset").raise_for_status()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()
        self._server._server.server_close()


@contextmanager
def serving_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """With an empty bucket `videos`, and the environment in which botocore finds it."""
    server = BucketServer()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{server.url}/videos").raise_for_status()
    try:
        yield server
    finally:
        server.stop()
