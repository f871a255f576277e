"""Every Redis key and channel that the project reads or writes, and the names of the queues.

ARCHITECTURE.md says what each key holds. Persisted names do not change: a database outlives the version that wrote it.
"""

# Records of videos.
VIDEOS = "framedit:videos"
UNFINISHED = "framedit:videos:unfinished"
IN_PROGRESS = "framedit:videos:running"
EXPIRING = "framedit:videos:expiring"

# The channel that announces which video has a new event.
EVENTS_CHANNEL = "framedit:events"

WEBHOOKS = "framedit:webhooks"
WEBHOOK_ATTEMPTS = "framedit:webhooks:attempts"

API_KEYS = "framedit:keys"

MODELS = "framedit:models"
WORKER_LOADS = "framedit:loads"
METRICS = "framedit:metrics:1"  # a new number for new histogram buckets: totals of other buckets cannot be added up

ORPHANS = "framedit:janitor:orphans"
ARTIFACT_STORE = "framedit:artifacts"

WAITING_COST = "framedit:waiting"
SYSTEM_VIRTUAL_TIMES = "framedit:levels"

DEATHS = "framedit:deaths"

# RQ's own keys.
RQ_QUEUES = "rq:queues"

_QUEUE_PREFIX = "framedit:"
_QUARANTINE = "alone"


def video(video_id: str) -> str:
    return f"framedit:video:{video_id}"


def videos_of(owner: str) -> str:
    return f"framedit:videos:of:{owner}"


def events(video_id: str) -> str:
    return f"framedit:events:{video_id}"


def snapshot(video_id: str) -> str:
    return f"framedit:snapshot:{video_id}"


def gone(video_id: str) -> str:
    return f"framedit:gone:{video_id}"


def idempotency(owner: str, key_hash: str) -> str:
    return f"framedit:idempotency:{owner}:{key_hash}"


def webhooks_to(receiver: str) -> str:
    return f"framedit:webhooks:to:{receiver}"


def requests(key_id: str) -> str:
    return f"framedit:requests:{key_id}"


def cost(key_id: str, day: int | str) -> str:
    return f"framedit:cost:{key_id}:{day}"


def usage(date: str) -> str:
    return f"framedit:usage:{date}"


def workers(model: str) -> str:
    return f"framedit:workers:{model}"


def bystanders(worker: str) -> str:
    return f"framedit:bystanders:{worker}"


def model_command(model: str) -> str:
    return f"framedit:model:{model}"


def process_metrics(process: str) -> str:
    return f"{METRICS}:process:{process}"


def worker_metrics(worker: str) -> str:
    return f"framedit:metrics:worker:{worker}"


def maintenance(task: str) -> str:
    return f"framedit:janitor:{task}"


def virtual_times(model: str, priority: str) -> str:
    return f"framedit:turns:{model}:{priority}"


def queue(queue_name: str) -> str:
    return f"rq:queue:{queue_name}"


def job(video_id: str) -> str:
    return f"rq:job:{video_id}"


def lease(video_id: str, execution_id: str) -> str:
    return f"rq:execution:{video_id}:{execution_id}"


# Names of queues. A normal priority without an owner has the model's name alone.


def queue_name(model: str, priority: str = "normal", owner: str | None = None) -> str:
    if owner is not None:
        return f"{_QUEUE_PREFIX}{model}:{priority}:{owner}"
    return f"{_QUEUE_PREFIX}{model}" if priority == "normal" else f"{_QUEUE_PREFIX}{model}:{priority}"


def quarantine_queue_name(model: str) -> str:
    return f"{_QUEUE_PREFIX}{model}:{_QUARANTINE}"


def model_of(queue_name: str) -> str:
    return queue_name.split(":", 2)[1]


def priority_of(queue_name: str) -> str | None:
    """Return the priority that a queue's name carries, None for a quarantine queue."""
    kind = [*queue_name.split(":", 3), "normal"][2]
    return None if kind == _QUARANTINE else kind


def is_video_queue(queue_name: str) -> bool:
    return queue_name.startswith(_QUEUE_PREFIX)


def is_owned(queue_name: str) -> bool:
    """Return whether a queue belongs to one API key."""
    return queue_name.count(":") >= 3
