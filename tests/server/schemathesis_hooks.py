"""Replaces generated requests for a video by valid ones: only a model card says which values are valid."""

from typing import Any

import schemathesis

FREE = {"seed", "n", "priority", "metadata"}
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    is_create = case.operation.label in ("POST /v1/videos", "POST /v1/videos/sync")
    is_remix = case.operation.label == "POST /v1/videos/{video_id}/remix"
    makes_from_video = case.operation.label in ("POST /v1/videos/edits", "POST /v1/videos/extensions")
    if (
        not (is_create or is_remix or makes_from_video)
        or not isinstance(case.body, dict)
        or case.meta.generation.mode.value != "positive"
    ):
        return
    if is_remix:
        case.body = {"prompt": "a blue star"}
    elif makes_from_video:
        case.media_type = "application/json"  # files of forms have tests of their own
        case.body = {"video": {"image_url": PIXEL}, "model": "tiny-text", "prompt": "a red circle"}
    else:
        # A list of videos has no id to go on with.
        free = FREE - {"n"} if case.meta.phase.name.value == "stateful" else FREE
        kept = {name: value for name, value in case.body.items() if name in free}
        case.body = kept | {"model": "tiny-text", "prompt": "a red circle"}
