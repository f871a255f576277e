"""The writer of each kind of result.

Shape legend: T frames, H height, W width.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.videos.record import ArtifactKind
from worker.output.formats.encoding import Encoding
from worker.output.formats.gif import write_gif
from worker.output.formats.mp4 import write_mp4
from worker.output.formats.png import write_frames, write_png
from worker.output.formats.webm import write_webm
from worker.output.formats.webp import write_webp

Writer = Callable[[NDArray[np.uint8], Path, Encoding], None]

# Each takes frames (T, H, W, 3) uint8 RGB.
WRITERS: Mapping[ArtifactKind, Writer] = {
    "video": write_mp4,
    "webm": write_webm,
    "gif": write_gif,
    "webp": write_webp,
    "frames": write_frames,
    "image": write_png,
}
