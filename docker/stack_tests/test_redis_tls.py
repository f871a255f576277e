"""The image of Redis with its own TLS, without a proxy in between; tests/cli/test_redis_tls.py has the rest."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from redis.exceptions import RedisError

from jobs.connection import check_certificate, connect
from jobs.errors import RedisCertificateError
from tests.tls import Authority

from .compose import run, wait_for

NAME = "framedit-redis-tls"
PORT = int(os.environ.get("TEST_PORT", "18000")) + 4
OPTIONS = {
    "port": "0",
    "tls-port": "6379",
    "tls-cert-file": "/tls/redis.pem",
    "tls-key-file": "/tls/redis.key",
    "tls-ca-cert-file": "/tls/ca.pem",
    "tls-auth-clients": "yes",
    "requirepass": "of-the-tests",
    "save": "",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """The authority that signs the certificates of a Redis on PORT and of its clients."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "the CA of the tests")
    authority.sign("redis", "127.0.0.1")
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)
    image = os.environ.get("REDIS_IMAGE", "redis:7")
    place = ["--name", NAME, "-p", f"127.0.0.1:{PORT}:6379", "-v", f"{folder}:/tls:ro", "--entrypoint", "redis-server"]
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    run("docker", "run", "-d", *place, image, *options)
    try:
        wait_for(lambda: "Ready to accept connections" in run("docker", "logs", NAME, errors=True), "Redis", 60)
        yield authority
    finally:
        run("docker", "rm", "-f", "-v", NAME)


def test_a_certificate_and_a_password_open_it(authority: Authority) -> None:
    certificate_file, key_file = authority.sign("client")
    parameters = f"ssl_ca_certs={authority.certificate_file}&ssl_certfile={certificate_file}&ssl_keyfile={key_file}"
    with closing(connect(f"rediss://:of-the-tests@127.0.0.1:{PORT}/0?{parameters}")) as client:
        assert client.ping()


def test_without_its_authority_it_is_not_believed(authority: Authority) -> None:
    with closing(connect(f"rediss://:of-the-tests@127.0.0.1:{PORT}/0")) as client:
        with pytest.raises(RedisError) as caught:
            client.ping()
        with pytest.raises(RedisCertificateError, match="is not accepted"):
            check_certificate(caught.value)


def test_in_clear_and_without_a_certificate_it_does_not_answer(authority: Authority) -> None:
    for url in (
        f"redis://:of-the-tests@127.0.0.1:{PORT}/0",
        f"rediss://:of-the-tests@127.0.0.1:{PORT}/0?ssl_ca_certs={authority.certificate_file}",
    ):
        with closing(connect(url)) as client, pytest.raises(RedisError):
            client.ping()
