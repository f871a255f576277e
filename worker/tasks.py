"""The function that RQ's tools show for a job. Workers never call it: they claim jobs and make videos in batches."""


def generate(video_id: str) -> None:
    """Refuse to run, for RQ's own workers.

    :raises RuntimeError: always.
    """
    raise RuntimeError(f"{video_id} cannot be made by `rq worker`; start a worker with `framedit worker`")
