"""The requests of the serving benchmarks of SGLang and FastVideo, in their order.

Their programs cannot run here as they are: they look the model up on the Hugging Face hub.
"""

import time

import httpx

from tests.interop.cases import MODEL, NUM_STEPS, PROMPT, URL, Case, run_cases

http = httpx.Client(base_url=URL, timeout=30)


class AnswerError(Exception):
    """An answer other than 200."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status_code = answer.status_code
        self.body = answer.json().get("error", {})
        super().__init__(f"{answer.status_code} {answer.text}")


def checked(answer: httpx.Response) -> dict[str, object]:
    if answer.status_code != 200:
        raise AnswerError(answer)
    return dict(answer.json())


def create(**fields: object) -> dict[str, object]:
    body = {"model": MODEL, "prompt": PROMPT, "num_inference_steps": NUM_STEPS}
    return checked(http.post("/v1/videos", json=body | fields))


def measure() -> str:
    video = create(size="64x64", num_frames=16, fps=8)
    while video["status"] not in ("completed", "failed"):
        time.sleep(0.1)
        video = checked(http.get(f"/v1/videos/{video['id']}"))
    assert video["status"] == "completed", video
    return f"stage_durations {video['stage_durations']}"


def form() -> object:
    fields = {"model": MODEL, "prompt": PROMPT, "width": "64", "height": "64", "num_frames": "16", "fps": "8"}
    fields |= {"num_inference_steps": str(NUM_STEPS), "seed": "1"}
    return checked(http.post("/v1/videos", data=fields))["id"]


if __name__ == "__main__":
    run_cases(
        [
            Case("GET /health", lambda: checked(http.get("/health"))),
            Case("POST /v1/videos in JSON, then polls", measure),
            Case("POST /v1/videos as a form with width and height", form),
            Case("GET /v1/model_info", lambda: checked(http.get("/v1/model_info")), may_be_refused=True),
            *(
                Case(f"field {name}", lambda name=name, value=value: create(**{name: value})["id"], may_be_refused=True)
                for name, value in {
                    "generator_device": "cuda",
                    "num_outputs_per_prompt": 1,
                    "true_cfg_scale": 4.0,
                    "guidance_scale_2": 3.0,
                    "flow_shift": 3.0,
                    "enable_teacache": True,
                    "output_path": "/tmp/video.mp4",
                    "extra_body": {},
                    "diffusers_kwargs": {},
                }.items()
            ),
            Case("POST /v1/chat/completions", lambda: checked(http.post("/v1/chat/completions", json={})), True),
        ]
    )
