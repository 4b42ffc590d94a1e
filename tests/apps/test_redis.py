"""Debian's redis-server with 100 000 keys, at rest and in the middle of a background save."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.eventually import eventually
from harness.files_appear import wait_until
from harness.job import Job
from harness.resp import Address, Redis, ServerError

KEYS = 100_000
BATCH = 2_000

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def command(directory: Path, *extra: str) -> list[str]:
    return [
        "/usr/bin/redis-server",
        *("--dir", str(directory)),
        *("--logfile", str(directory / "log")),
        *("--save", ""),
        *("--enable-debug-command", "yes"),
        *extra,
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def answers(address: Address) -> bool:
    try:
        with Redis(address) as redis:
            return redis("PING") == "PONG"
    except (ConnectionError, FileNotFoundError, ServerError):  # not there yet, or still loading
        return False


def value(number: int) -> str:
    return f"value {number} " + "x" * (number % 50)


def fill(redis: Redis) -> None:
    """Store 100 000 keys of every kind, ten of each hundred other than strings."""
    for start in range(0, KEYS, BATCH):
        commands: list[list[str]] = []
        for number in range(start, start + BATCH):
            key = f"key:{number}"
            match number % 100:
                case 0:
                    commands.append(["RPUSH", key, *(str(item) for item in range(20))])
                case 1:
                    commands.append(["HSET", key, "a", str(number), "b", "2"])
                case 2:
                    commands.append(["SADD", key, *(f"m{item}" for item in range(10))])
                case 3:
                    commands.append(["ZADD", key, "1.5", "one", "2.5", "two"])
                case 4:
                    commands.append(["SET", key, value(number), "EX", "1000000"])
                case _:
                    commands.append(["SET", key, value(number)])
        redis.pipeline(commands)


def check_all(redis: Redis) -> None:
    """Ask for every key."""
    assert redis("DBSIZE") == KEYS + 1  # and the counter
    for start in range(0, KEYS, BATCH):
        numbers = range(start, start + BATCH)
        asked: list[list[str]] = []
        want: list[object] = []
        for number in numbers:
            key = f"key:{number}"
            match number % 100:
                case 0:
                    asked.append(["LRANGE", key, "0", "-1"])
                    want.append([str(item) for item in range(20)])
                case 1:
                    asked.append(["HGETALL", key])
                    want.append(["a", str(number), "b", "2"])
                case 2:
                    asked.append(["SCARD", key])
                    want.append(10)
                case 3:
                    asked.append(["ZRANGE", key, "0", "-1", "WITHSCORES"])
                    want.append(["one", "1.5", "two", "2.5"])
                case _:
                    asked.append(["GET", key])
                    want.append(value(number))
        assert redis.pipeline(asked) == want


def digest(redis: Redis) -> str:
    found = redis("DEBUG", "DIGEST")
    assert isinstance(found, str)
    return found


def info(redis: Redis, name: str) -> str:
    text = redis("INFO")
    assert isinstance(text, str)
    return next(line.split(":", 1)[1] for line in text.splitlines() if line.startswith(f"{name}:"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("where", ["unix socket", "loopback port"])
def test_keys_survive(job: Job, where: str) -> None:
    address: Address
    if where == "unix socket":
        address = str(job.files / "redis.sock")
        options = ["--port", "0", "--unixsocket", address]
    else:
        address = ("127.0.0.1", free_port())
        options = ["--port", str(address[1]), "--bind", "127.0.0.1"]
    job.run(command(job.files, *options))
    eventually(lambda: answers(address), 20, "redis answers")
    with Redis(address) as redis:
        fill(redis)
        redis("SET", "counter", "0")
        pid = info(redis, "process_id")
    for number in range(CYCLES):
        with Redis(address) as redis:
            before = digest(redis)
        cycle(job)
        eventually(lambda: answers(address), 20, "redis answers")
        with Redis(address) as redis:
            assert digest(redis) == before
            assert info(redis, "process_id") == pid
            assert redis("INCR", "counter") == number + 1
    with Redis(address) as redis:
        check_all(redis)
        assert redis("SAVE") == "OK"
    job.kill()


@pytest.mark.timeout(900)
def test_background_save_survives(job: Job) -> None:
    address = str(job.files / "redis.sock")
    dump = job.files / "dump.rdb"
    # each key of the save takes long enough for several cycles to find it at work
    job.run(command(job.files, "--port", "0", "--unixsocket", address, "--rdb-key-save-delay", "20"))
    eventually(lambda: answers(address), 20, "redis answers")
    with Redis(address) as redis:
        fill(redis)
        redis("SET", "counter", "0")
    saved = ""
    caught = 0

    def saving() -> bool:
        with Redis(address) as redis:
            return info(redis, "rdb_bgsave_in_progress") == "1"

    def finished() -> None:
        eventually(lambda: not saving(), 120, "the background save ends")
        with Redis(address) as redis:
            assert info(redis, "rdb_last_bgsave_status") == "ok"
        check_dump(job, dump, saved)
        dump.unlink()

    for number in range(CYCLES):
        if not saving():
            if saved:
                finished()
            saved = start_saving(job, address)
        cycle(job)
        eventually(lambda: answers(address), 20, "redis answers")
        caught += saving()
        with Redis(address) as redis:
            # the parent's own memory goes on changing under the child's feet
            assert redis("INCR", "counter") == number + 1
            assert redis("SET", f"key:{50 + number}", value(50 + number)) == "OK"
    assert caught >= CYCLES * 2 // 3, f"only {caught} checkpoints were taken during a save"
    finished()
    with Redis(address) as redis:
        check_all(redis)
    job.kill()


def start_saving(job: Job, address: Address) -> str:
    """Have the server begin a background save by itself; return the digest of what it saves.

    A child forked for a client's BGSAVE would hold on to that client's connection, which leads out
    of the job.
    """
    with Redis(address) as redis:
        redis("SET", "counter", str(redis("GET", "counter")))
        want = digest(redis)
        redis("CONFIG", "SET", "save", "1 1")
    assert wait_until(lambda: any(job.files.glob("temp-*.rdb")), job.files, 30), "no background save begins"
    with Redis(address) as redis:
        redis("CONFIG", "SET", "save", "")
    return want


def check_dump(job: Job, dump: Path, want: str) -> None:
    """Load what the save wrote into a second server, as a job of its own, and compare the digests."""
    second = Job(f"{job.name}-second", job.directory, job.orch)
    directory = job.files / "second"
    directory.mkdir(exist_ok=True)
    shutil.copy(dump, directory / "dump.rdb")
    address = str(directory / "redis.sock")
    second.run(command(directory, "--port", "0", "--unixsocket", address))

    def loaded() -> bool:
        if not answers(address):
            return False
        with Redis(address) as redis:
            return info(redis, "loading") == "0"

    eventually(loaded, 30, "the second redis has loaded the dump")
    with Redis(address) as redis:
        assert digest(redis) == want
    second.orch.ok("kill", second.name)
