"""Load a checkpoint in your own program, generate the frames of a video, and write them to MP4 files."""

import numpy as np

from worker.library import load

pipeline = load("checkpoints/demo-text")
frames = pipeline.generate(
    "a red circle moving right on a black background",
    seed=7,
    on_step=lambda step, steps: print(f"step {step} of {steps}"),
)
print(f"{frames.shape} {frames.dtype}, mean brightness {np.mean(frames):.1f}")
pipeline.save(frames, "video.mp4")

# An adapter teaches the model a shape that it does not know.
frames = pipeline.generate("a red sparkle moving right on a black background", seed=7, adapters={"demo-sparkle": 1.0})
pipeline.save(frames, "sparkle.mp4")
