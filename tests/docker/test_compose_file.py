"""What can be said of docker-compose.yml and the Dockerfiles without Docker; docker/test runs them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.worker_child import END_SECONDS
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["init"] is True
    assert service["restart"] == (
        "no" if "healthcheck" in service and service["healthcheck"].get("disable") else "unless-stopped"
    )
    assert "privileged" not in service
    assert "cap_add" not in service


def test_redis_is_reached_from_the_inner_network_alone() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["inside"]
    assert {name for name, service in SERVICES.items() if "inside" in service.get("networks", [])} == {
        "redis",
        "api",
        "worker",
        "worker-gpu",
    }


def test_ports_are_published_on_this_machine_alone_unless_somebody_says_otherwise() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"api", "grafana"}
    assert ports["api"] == ["${API_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8000"]
    assert all(port.startswith("127.0.0.1:") for port in ports["grafana"])


def test_what_needs_redis_waits_until_it_is_healthy() -> None:
    for name in ("api", "worker", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert SERVICES["redis"]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}


def test_a_worker_has_the_time_to_drain() -> None:
    for name in ("worker", "worker-gpu"):
        given = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert given > Settings().drain_seconds + END_SECONDS


def test_gpus_are_reserved_all_of_them() -> None:
    reservations = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]
    assert reservations == {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}


def test_every_variable_of_the_file_is_in_the_example_with_its_default() -> None:
    example = dict(re.findall(r"^# (\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = dict(re.findall(r"\$\{(\w+)(?::-([^}]*))?\}", TEXT))
    names = {name for name in used if not name.startswith(("FRAMEDIT_", "AWS_"))}
    assert {name: used[name] for name in names} == {name: example.get(name, "missing") for name in names}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_images_run_as_nobody_special_without_a_shell(path: Path) -> None:
    text = path.read_text()
    final = text.rpartition("\nFROM ")[2]
    assert text.count("ARG BASE_IMAGE=python:3.11-slim") == 1
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    for instruction in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "RUN"):
        lines = re.findall(rf"^{instruction} .*$", final, re.MULTILINE)
        assert lines, instruction
        assert all("[" in line for line in lines), lines


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_change_of_the_source_rebuilds_no_dependency(path: Path) -> None:
    steps = re.findall(r"^(?:COPY|RUN) (?:.*\\\n)*.*", path.read_text(), re.MULTILINE)
    source = next(index for index, step in enumerate(steps) if step.startswith("COPY . "))
    assert any("-r requirements.txt -c constraints.txt" in step for step in steps[:source])
    assert all("--no-deps" in step for step in steps[source:] if "install -" in step and "pip" in step)


def test_requirements_are_those_of_the_project() -> None:
    command = [sys.executable, "docker/requirements.py", "pyproject.toml", "s3"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("fastapi>=") for line in lines)
    assert any(line.startswith("s3fs") for line in lines)
    assert not any(line.startswith("torch") for line in lines)


def test_the_password_of_redis_is_drawn_once_or_given(tmp_path: Path) -> None:
    def written(**env: str) -> dict[str, str]:
        subprocess.run([sys.executable, ROOT / "docker/setup/redis_secrets.py", tmp_path], env=env, check=True)
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    drawn = written()
    assert len(drawn["redis_password"]) > 30
    assert f'requirepass "{drawn["redis_password"]}"' in drawn["redis.conf"]
    assert drawn["redis_url"] == f"redis://:{drawn['redis_password']}@redis:6379/0"
    assert written() == drawn
    given = written(REDIS_PASSWORD="p@ss/word")
    assert given["redis_url"] == "redis://:p%40ss%2Fword@redis:6379/0"
    assert 'requirepass "p@ss/word"' in given["redis.conf"]


@pytest.mark.parametrize(
    ("env", "starts"),
    [
        ({}, True),
        ({"API_ADDRESS": "127.0.0.1", "ALLOW_ANONYMOUS": ""}, True),
        ({"API_ADDRESS": "::1"}, True),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": ""}, False),
        ({"API_ADDRESS": "192.168.1.5"}, False),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": "false"}, True),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": "true"}, True),
    ],
)
def test_a_network_needs_a_word_of_the_owner(tmp_path: Path, env: dict[str, str], starts: bool) -> None:
    command = [sys.executable, ROOT / "docker/setup", tmp_path]
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (ended.returncode == 0) is starts
    assert (tmp_path / "redis_url").exists() is starts
    assert ("publishes the API to a network" in ended.stderr) is not starts
