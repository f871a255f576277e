"""Lets well-formed requests for a video be such as a model takes: which ones those are, only its card tells."""

from typing import Any

import schemathesis

FREE = {"seed", "n", "priority", "metadata"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    is_create = case.operation.label in ("POST /v1/videos", "POST /v1/videos/sync")
    is_remix = case.operation.label == "POST /v1/videos/{video_id}/remix"
    if not (is_create or is_remix) or not isinstance(case.body, dict) or case.meta.generation.mode.value != "positive":
        return
    if is_remix:
        case.body = {"prompt": "a blue star"}
    else:
        # A list of videos has no id to go on with.
        free = FREE - {"n"} if case.meta.phase.name.value == "stateful" else FREE
        kept = {name: value for name, value in case.body.items() if name in free}
        case.body = kept | {"model": "tiny-text", "prompt": "a red circle"}
