"""The evaluation of a demo checkpoint: a fixed list of prompts or classes, and their expected attributes."""

import random
from dataclasses import dataclass

from training.world import prompts
from training.world.scenes import CLASS_NAMES, SHAPES, Scene, Split, draw_scenes

HELD_OUT_SHARE = 0.3


@dataclass(frozen=True)
class Task:
    """One video to ask for, by prompt or by class label; `scored` are the attributes that the request fixes."""

    scene: Scene
    scored: tuple[str, ...]
    groups: tuple[str, ...]
    prompt: str | None = None
    label: int | None = None


def text_tasks(num_tasks: int, seed: int = 0) -> list[Task]:
    """Prompts in turn in the grammar's words and in sentences unknown to training; three of ten for combinations of
    colour, shape and motion unknown to training."""
    num_held_out = round(num_tasks * HELD_OUT_SHARE)
    splits = {Split.TRAINING: num_tasks - num_held_out, Split.HELD_OUT: num_held_out}
    drawn = [(split, scene) for split, num in splits.items() for scene in draw_scenes(num, seed, split).words()]
    rng = random.Random(seed)
    return [_text_task(scene, split, rng, in_grammar=index % 2 == 0) for index, (split, scene) in enumerate(drawn)]


def class_tasks(num_tasks: int) -> list[Task]:
    """Every class in turn."""
    return [_class_task(index % len(CLASS_NAMES)) for index in range(num_tasks)]


def _text_task(scene: Scene, split: Split, rng: random.Random, in_grammar: bool) -> Task:
    scored: tuple[str, ...] = ("color", "shape", "motion", "background")
    group = "seen combinations" if split is Split.TRAINING else "held-out combinations"
    if in_grammar:
        with_size = rng.random() < 0.5
        text, wording = prompts.canonical(scene, with_size), "the grammar's words"
    else:
        made = prompts.describe(scene, rng, held_out=True)
        with_size = made.said["size"] is not None
        text, wording = made.text, "other sentences"
    return Task(scene, (*scored, "size") if with_size else scored, ("all", group, wording), prompt=text)


def _class_task(label: int) -> Task:
    shape, direction = CLASS_NAMES[label].split("-")
    assert shape in SHAPES
    # The class leaves colour, background and size open: they are not scored.
    scene = Scene("red", shape, f"moving {direction}", "black", "large")
    return Task(scene, ("shape", "motion"), ("all",), label=label)
