"""Scores of one video: the requested attributes, identity over the occlusion, and the motion of both objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.fast.reading import Seen, SeenObject, read_video
from training.world.fast.scenes import OBJECTS, RADIUS, FastScene, Thing

ATTRIBUTES = ("background", "color", "shape", "pattern", "direction", "pace", "order")
# Objects nearer than the first hide each other in part; farther apart than the second, they do not touch.
OVERLAP_DISTANCE, TOUCH_DISTANCE = 1.6 * RADIUS, 2.0 * RADIUS
FAST_SPEED = 0.125  # half frames per frame, between the world's two paces
FOLLOWED_PIXELS = 2.0
LOST_PIXELS = 32.0  # the error of an object that is not to be seen
# Identity compares frames that show an object this whole: where two objects nearly touch, MP4s blur their colors.
IDENTITY_SHARE = 0.93
LEAST_FRAMES_AROUND = 3


@dataclass(frozen=True)
class Score:
    """One video. `right` has the share of right answers by attribute; `identity` is None where no occlusion is seen.

    `position_error_pixels` is the root mean square distance of the two objects to the legal path that fits best,
    `speed_spread` the standard deviation of the speed over its mean.
    """

    right: dict[str, float]
    identity: bool | None
    position_error_pixels: float
    followed: bool
    speed_spread: float | None


def score_video(frames: NDArray[np.uint8], scene: FastScene) -> Score:
    """Read decoded `frames` (T, S, S, 3) and compare them with what was requested."""
    seen = read_video(frames)
    things = [seen.objects.get(getattr(scene, owner).color) for owner in OBJECTS]
    errors = [_error(thing) for thing in things]
    spreads = [spread for thing in things if thing is not None and (spread := thing.speed_spread()) is not None]
    return Score(
        right=_right(seen, things, scene),
        identity=_identity(things),
        position_error_pixels=float(np.mean(errors)),
        followed=max(errors) <= FOLLOWED_PIXELS,
        speed_spread=float(np.mean(spreads)) if spreads else None,
    )


def _error(thing: SeenObject | None) -> float:
    return LOST_PIXELS if thing is None else float(np.sqrt(np.nanmean(np.square(thing.errors_pixels))))


def _right(seen: Seen, things: list[SeenObject | None], scene: FastScene) -> dict[str, float]:
    marks: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    marks["background"].append(seen.background == scene.background)
    for owner, thing in zip(OBJECTS, things, strict=True):
        for name, right in _object_right(thing, getattr(scene, owner), scene.pace).items():
            marks[name].append(right)
    order = _front_shows_more(things)
    if order is not None:
        marks["order"].append(order)
    return {name: float(np.mean(values)) for name, values in marks.items() if values}


def _object_right(thing: SeenObject | None, asked: Thing, pace: str) -> dict[str, bool]:
    """An object that is not to be seen is wrong in everything."""
    if thing is None:
        return dict.fromkeys(("color", "shape", "pattern", "direction", "pace"), False)
    frames = thing.best_frames(np.ones_like(thing.whole))
    return {
        "color": True,
        "shape": thing.shape(frames) == asked.shape,
        "pattern": thing.pattern(frames) == asked.pattern,
        "direction": asked.direction in thing.path.first_directions(),
        "pace": (thing.path.speed > FAST_SPEED) == (pace == "quickly"),
    }


def _nearer_than(distance: float, front: SeenObject, back: SeenObject) -> NDArray[np.bool_]:
    """The frames in which the objects' paths are nearer than `distance`."""
    times = np.arange(len(front.centers), dtype=np.float64)
    apart = np.linalg.norm(front.path.at(times) - back.path.at(times), axis=1)
    return np.asarray(apart < distance)


def _front_shows_more(things: list[SeenObject | None]) -> bool | None:
    """Whether the object that is to be in front hides the other; None where they do not overlap."""
    front, back = things
    if front is None or back is None:
        return False
    near = _nearer_than(OVERLAP_DISTANCE, front, back)
    return bool(front.shares[near].mean() > back.shares[near].mean()) if near.any() else None


def _identity(things: list[SeenObject | None]) -> bool | None:
    """Whether both objects have the same shape and pattern, and are on their path, before and after an occlusion."""
    front, back = things
    if front is None or back is None:
        return False
    touching = _nearer_than(TOUCH_DISTANCE, front, back)
    times = np.arange(len(touching))
    for moment in np.flatnonzero(_nearer_than(OVERLAP_DISTANCE, front, back)):
        before, after = times < moment, times > moment
        sides = [
            [thing.best_frames(side & ~touching, IDENTITY_SHARE) for side in (before, after)] for thing in (front, back)
        ]
        if min(len(frames) for pair in sides for frames in pair) >= LEAST_FRAMES_AROUND:
            return all(_same(thing, *pair) for thing, pair in zip((front, back), sides, strict=True))
    return None


def _same(thing: SeenObject, before: NDArray[np.intp], after: NDArray[np.intp]) -> bool:
    on_path = max(float(np.median(thing.errors_pixels[frames])) for frames in (before, after)) <= FOLLOWED_PIXELS
    return on_path and thing.shape(before) == thing.shape(after) and thing.pattern(before) == thing.pattern(after)
