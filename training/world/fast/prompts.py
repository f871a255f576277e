"""Prompts for scenes of the fast world: the grammar's own sentence, and other wordings of the same scene."""

import random
from dataclasses import dataclass

from training.world import wordings
from training.world.fast.scenes import COLUMNS, OBJECTS, FastScene, Thing

SYNONYM_CHANCE = 0.2
CANONICAL_CHANCE = 0.4
OMIT_CHANCE = {"background": 0.1, "pace": 0.1}

CANONICAL = "{front} moving {front_way} {pace} in front of {back} moving {back_way}, on {background}"
PATTERNS = (
    "{front} moves {front_way} {pace} in front of {back} that moves {back_way}, on {background}",
    "{back} moving {back_way} {pace} behind {front} moving {front_way}, on {background}",
    "{front} going {front_way} {pace} passes in front of {back} going {back_way} on {background}",
    "{back} heading {back_way} {pace} passes behind {front} heading {front_way} on {background}",
    "{front} in front, moving {front_way}, and {back} behind it, moving {back_way}, {pace}, on {background}",
    "on {background}, {front} moving {front_way} {pace} over {back} moving {back_way}",
)
PACE_WORDS = {"quickly": ("quickly", "fast", "rapidly"), "slowly": ("slowly", "gently")}
PATTERN_WORDS = {
    "plain": ("plain", "solid", "plain"),
    "striped": ("striped", "banded"),
    "dotted": ("dotted", "spotted"),
}
WAYS = {
    "moving left": ("left", "to the left", "leftwards"),
    "moving right": ("right", "to the right", "rightwards"),
    "moving up": ("up", "upwards"),
    "moving down": ("down", "downwards"),
}


@dataclass(frozen=True)
class FastWording:
    """A prompt and what it says: for each column of the world its word, or None where the prompt leaves it open."""

    text: str
    said: dict[str, str | None]

    def targets(self) -> list[int]:
        """Class indices in the order of COLUMNS; the one after the last word means "unspecified"."""
        words = ((COLUMNS[name], word) for name, word in self.said.items())
        return [len(known) if word is None else known.index(word) for known, word in words]


def canonical(scene: FastScene) -> str:
    """The grammar's sentence: "a plain red circle moving up quickly in front of a dotted blue square ..."."""
    return _fill(CANONICAL, scene, dict(scene.words()), None)


def describe(scene: FastScene, rng: random.Random) -> FastWording:
    """One wording of the scene and what it says of it."""
    said: dict[str, str | None] = dict(scene.words())
    if rng.random() < CANONICAL_CHANCE:
        return FastWording(_fill(CANONICAL, scene, said, None), said)
    said |= {name: None for name, chance in OMIT_CHANCE.items() if rng.random() < chance}
    return FastWording(_fill(rng.choice(PATTERNS), scene, said, rng), said)


def _fill(pattern: str, scene: FastScene, said: dict[str, str | None], rng: random.Random | None) -> str:
    background, pace = said["background"], said["pace"]
    ground = "a plain background"
    if background is not None:
        word = _word(wordings.BACKGROUND_WORDS[background], rng)
        ground = f"{_article(word)} {word} background"
    parts = {"background": ground, "pace": "" if pace is None else _word(PACE_WORDS[pace], rng)}
    for owner in OBJECTS:
        thing: Thing = getattr(scene, owner)
        parts[owner] = _subject(thing, rng)
        parts[f"{owner}_way"] = _word(WAYS[thing.direction], rng)
    text = " ".join(pattern.format_map(parts).split())
    return text.replace(" ,", ",").replace(",,", ",")


def _subject(thing: Thing, rng: random.Random | None) -> str:
    tables = (
        PATTERN_WORDS[thing.pattern],
        wordings.COLOR_WORDS[thing.color],
        wordings.SHAPE_WORDS[thing.shape],
    )
    subject = " ".join(_word(words, rng) for words in tables)
    return f"{_article(subject)} {subject}"


def _word(words: tuple[str, ...], rng: random.Random | None) -> str:
    """The grammar's word, or now and then a synonym."""
    return rng.choice(words) if rng is not None and rng.random() < SYNONYM_CHANCE else words[0]


def _article(subject: str) -> str:
    return "an" if subject[0] in "aeio" else "a"
