"""Every Redis key is in one table, in code and in ARCHITECTURE.md."""

import inspect
import re
from pathlib import Path

from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from jobs import redis_keys

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "cli", "jobs", "server", "worker")
NO_KEYS = {"queue_name", "quarantine_queue_name", "model_of", "priority_of", "is_video_queue", "is_owned"}


def keys_in_code() -> set[str]:
    """Each constant, and each function called with the names of its parameters in angle brackets."""
    constants = {value for name, value in vars(redis_keys).items() if name.isupper() and name[0] != "_"}
    functions = [
        function for name, function in inspect.getmembers(redis_keys, inspect.isfunction) if name not in NO_KEYS
    ]
    return constants | {
        function(*[f"<{name}>" for name in inspect.signature(function).parameters]) for function in functions
    }


def test_architecture_explains_every_key_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`(?:framedit|rq):.*?) \|", text, re.M)
    assert {key for cell in cells for key in re.findall(r"`(.*?)`", cell)} == keys_in_code()


def test_no_other_module_spells_a_key() -> None:
    spelled = [
        f"{path.relative_to(ROOT)}: {match}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path != Path(redis_keys.__file__)
        for match in re.findall(r"""f?["'](?:framedit|rq):(?! )[^"']*""", path.read_text(encoding="utf-8"))
    ]
    assert spelled == []


def test_rq_spells_its_keys_in_the_same_way() -> None:
    assert Queue.redis_queues_keys == redis_keys.RQ_QUEUES
    assert redis_keys.queue("framedit:tiny") == Queue.redis_queue_namespace_prefix + "framedit:tiny"
    assert redis_keys.job("video_1") == Job.key_for("video_1")
    assert redis_keys.lease("video_1", "x") == Execution("x", "video_1", None).key
