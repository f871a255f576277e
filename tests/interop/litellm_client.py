"""LiteLLM's SDK, with this server as an OpenAI provider."""

import os
import time

# Without it, LiteLLM downloads its price list when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from tests.interop.cases import MODEL, NUM_STEPS, PROMPT, URL, Case, require_mp4, run_cases

SERVER = {"api_base": f"{URL}/v1", "api_key": "unused"}
PROVIDER = SERVER | {"custom_llm_provider": "openai"}
VIDEO_ID = ""


def create() -> str:
    global VIDEO_ID
    video = litellm.video_generation(
        model=f"openai/{MODEL}", prompt=PROMPT, extra_body={"num_inference_steps": NUM_STEPS}, **SERVER
    )
    VIDEO_ID = video.id
    return video.status


def wait() -> str:
    while (video := litellm.video_status(VIDEO_ID, **SERVER)).status not in ("completed", "failed"):
        time.sleep(0.2)
    assert video.status == "completed", video
    return video.status


def remix() -> str:
    return litellm.video_remix(VIDEO_ID, prompt="a blue circle moving left on a black background", **PROVIDER).status


if __name__ == "__main__":
    run_cases(
        [
            Case("video_generation", create),
            Case("video_status", wait),
            Case("video_content", lambda: require_mp4(litellm.video_content(VIDEO_ID, **SERVER))),
            Case("video_list", lambda: f"{len(litellm.video_list(**PROVIDER))} videos"),
            Case("video_remix", remix),
            Case(
                "video_edit",
                lambda: litellm.video_edit(VIDEO_ID, prompt=PROMPT, **PROVIDER).status,
            ),
            Case(
                "video_extension",
                lambda: litellm.video_extension(VIDEO_ID, prompt=PROMPT, seconds="1", **PROVIDER).status,
            ),
            Case(
                "video_get_character",
                lambda: litellm.video_get_character("char_1", **PROVIDER).id,
                may_be_refused=True,
            ),
        ]
    )
