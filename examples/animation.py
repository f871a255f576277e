"""Generate several videos and tile them into one animated WebP. It made the picture in README.md.

    python examples/animation.py docs/demo.webp
    python examples/animation.py out.webp "a blue star spinning" "a red square growing"

Shape legend: T frames, H height, W width.
"""

import sys
import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.library import load

PROMPTS = [
    "a red circle moving right on a black background",
    "a yellow circle growing on a brown background",
    "a green square moving up on a gray background",
    "a white star spinning on a navy background",
    "purple star that slides to the left, on black",
    "an orange triangle shrinking on a gray background",
    "a cyan square moving down on a navy background",
    "a large blue square staying still on a gray background",
]
COLUMNS = 4
TILE_PIXELS = 160
CAPTION_PIXELS = 62
GAP_PIXELS = 12
LAST_FRAME_MILLISECONDS = 700


def main(output: Path, checkpoint: Path = Path("checkpoints/demo-text"), prompts: list[str] = PROMPTS) -> None:
    """Write the animation of `prompts` to `output`."""
    pipeline = load(checkpoint)
    videos = []
    for prompt in prompts:
        print(prompt)
        videos.append(pipeline.generate(prompt, seed=7))
    pages = [page([video[t] for video in videos], prompts) for t in range(len(videos[0]))]
    durations = [1000 // pipeline.card.fps] * len(pages)
    durations[-1] = LAST_FRAME_MILLISECONDS
    pages[0].save(output, save_all=True, append_images=pages[1:], duration=durations, loop=0, quality=80, method=6)


def page(frames: list[NDArray[np.uint8]], captions: list[str]) -> Image.Image:
    """Place one frame (H, W, 3) of each video above its caption."""
    font = ImageFont.load_default(size=13)
    rows = -(-len(frames) // COLUMNS)
    width = COLUMNS * (TILE_PIXELS + GAP_PIXELS) - GAP_PIXELS
    height = rows * (TILE_PIXELS + CAPTION_PIXELS)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        row, column = divmod(index, COLUMNS)
        x, y = column * (TILE_PIXELS + GAP_PIXELS), row * (TILE_PIXELS + CAPTION_PIXELS)
        tile = Image.fromarray(frame).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x, y))
        draw.multiline_text((x, y + TILE_PIXELS + 4), textwrap.fill(caption, 22), fill="#444444", font=font)
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]), prompts=sys.argv[2:] or PROMPTS)
