"""Prompts for scenes: the grammar's own sentence, and many other wordings of the same scene."""

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from training.world import wordings
from training.world.scenes import ATTRIBUTES, VOCABULARY, Scene

Item = TypeVar("Item")

SYNONYM_CHANCE = 0.35
_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "color": wordings.COLOR_WORDS,
    "shape": wordings.SHAPE_WORDS,
    "background": wordings.BACKGROUND_WORDS,
    "size": wordings.SIZE_WORDS,
}
_UNKNOWN = {
    "color": wordings.UNKNOWN_COLORS,
    "shape": wordings.UNKNOWN_SHAPES,
    "background": wordings.UNKNOWN_BACKGROUNDS,
}
# How often a wording does not say it, and how often it says something that the world cannot show.
_OMIT_CHANCE = {"color": 0.03, "shape": 0.0, "motion": 0.05, "background": 0.15, "size": 0.5}
_UNKNOWN_CHANCE = {"color": 0.04, "shape": 0.04, "background": 0.04}


@dataclass(frozen=True)
class Wording:
    """A prompt and what it says: for each attribute the vocabulary's word, or None where it leaves it open."""

    text: str
    said: dict[str, str | None]

    def targets(self) -> list[int]:
        """Class indices in the order of ATTRIBUTES; the one after the last word means "unspecified"."""
        return [target_index(name, self.said[name]) for name in ATTRIBUTES]


def target_index(attribute: str, word: str | None) -> int:
    words = VOCABULARY[attribute]
    return len(words) if word is None else words.index(word)


def canonical(scene: Scene, with_size: bool = True) -> str:
    """The grammar's sentence, e.g. "a large red circle moving right on a black background"."""
    subject = f"{scene.size} {scene.color} {scene.shape}" if with_size else f"{scene.color} {scene.shape}"
    return f"{_article(subject)} {subject} {scene.motion} on a {scene.background} background"


def sample(scene: Scene, rng: random.Random) -> str:
    """One wording of the scene, for training a video model: the grammar's own in one of four, else any other."""
    if rng.random() < 0.25:
        return canonical(scene, with_size=rng.random() < 0.5)
    return describe(scene, rng).text


def describe(scene: Scene, rng: random.Random, held_out: bool = False) -> Wording:
    """One wording of the scene and what it says of it; with `held_out`, in a sentence pattern unknown to training."""
    said = _said(scene, rng, complete=held_out)
    words = {name: _word(name, said[name], rng) for name in _WORDS}
    pattern = rng.choice(_patterns(said["motion"], words["background"], held_out))
    parts = _motion(said["motion"], rng) | _background(words["background"], rng)
    as_adjective = not held_out and said["motion"] and rng.random() < 0.1
    if said["motion"] and as_adjective:
        words["color"] = f"{rng.choice(wordings.ADJECTIVES[said['motion']])} {words['color']}"
        pattern = rng.choice(_patterns(None, words["background"], held_out=False))
    parts |= {"subject": _subject(words, rng), "opening": rng.choice(wordings.OPENINGS)}
    return Wording(_finish(pattern.format_map(parts), rng), said)


def disturb(wording: Wording, rng: random.Random) -> Wording:
    """The same wording with slips of the pen, or now and then words that say nothing at all, for the text encoder."""
    if rng.random() < 0.03:
        words = [_other_word(rng) for _ in range(rng.randint(0, 8))]
        return Wording(" ".join(words), dict.fromkeys(ATTRIBUTES))
    text = wording.text
    if rng.random() < 0.3:
        text = _insert(text, [_other_word(rng) for _ in range(rng.randint(1, 3))], rng)
    if rng.random() < 0.1:
        text = _misspell(text, rng)
    return Wording(text, wording.said)


def _said(scene: Scene, rng: random.Random, complete: bool) -> dict[str, str | None]:
    said: dict[str, str | None] = dict(asdict(scene))
    for name, chance in _OMIT_CHANCE.items():
        if rng.random() < chance and not (complete and name != "size"):
            said[name] = None
    if not complete:
        for name, chance in _UNKNOWN_CHANCE.items():
            if rng.random() < chance:
                said[name] = None
    return said


def _word(attribute: str, said: str | None, rng: random.Random) -> str:
    """The word for what is said; for what is left open, nothing, or a word for what the world cannot show."""
    if said is not None:
        synonyms = _WORDS[attribute][said]
        return rng.choice(synonyms) if rng.random() < SYNONYM_CHANCE else synonyms[0]
    unknown = _UNKNOWN.get(attribute)
    if unknown is None or (attribute != "shape" and rng.random() < 0.5):
        return ""
    return rng.choice(unknown)


def _patterns(motion: str | None, background: str, held_out: bool) -> Sequence[str]:
    if held_out:
        return wordings.HELD_OUT_PATTERNS
    if motion is None:
        return wordings.PATTERNS_WITHOUT_MOTION if background else wordings.PATTERNS_BARE
    return wordings.PATTERNS if background else wordings.PATTERNS_WITHOUT_BACKGROUND


def _motion(motion: str | None, rng: random.Random) -> dict[str, str]:
    if motion is None:
        return {}
    doing, does = _verb(motion, rng)
    if motion != "staying still" and rng.random() < 0.1:
        manner = rng.choice(wordings.MANNERS)
        order = "{manner} {verb}" if rng.random() < 0.5 else "{verb} {manner}"
        doing, does = order.format(manner=manner, verb=doing), order.format(manner=manner, verb=does)
    return {"doing": doing, "does": does, "noun": rng.choice(wordings.MOTION_NOUNS[motion])}


def _verb(motion: str, rng: random.Random) -> wordings.Verb:
    own = wordings.VERBS.get(motion, ())
    if motion in wordings.WAYS and not (own and rng.random() < 0.25):
        (doing, does), way = _favour_first(wordings.GO, rng), _favour_first(wordings.WAYS[motion], rng)
        return f"{doing} {way}", f"{does} {way}"
    return _favour_first(own, rng)


def _background(back: str, rng: random.Random) -> dict[str, str]:
    place = _weighted(wordings.PLACES, rng).format(back=back)
    return {"back": back, "ground": f"{back} background", "place": place}


def _subject(words: dict[str, str], rng: random.Random) -> str:
    pattern = _weighted(wordings.SUBJECTS, rng) if words["color"] else "{size} {shape}"
    subject = " ".join(pattern.format_map(words).replace(" ,", ",").split())
    if words["size"] and "{size}" not in pattern:
        subject = f"{words['size']} {subject}"
    determined = (f"{_article(subject)} {subject}", subject, f"the {subject}", f"one {subject}")
    return rng.choices(determined, (7, 2, 1, 0.3))[0]


def _finish(text: str, rng: random.Random) -> str:
    """Fillers, punctuation and capital letters, as people type."""
    text = " ".join(text.split())
    if rng.random() < 0.08:
        text = f"{text}, {rng.choice(wordings.FILLERS)}"
    if rng.random() < 0.03:
        text = f"{rng.choice(wordings.FILLERS)}, {text}"
    if rng.random() < 0.15:
        text += rng.choice((".", "!", "..."))
    if rng.random() < 0.05:
        text = text.replace(",", "").replace(".", "").replace(":", "")
    return text.capitalize() if rng.random() < 0.1 else text


def _other_word(rng: random.Random) -> str:
    """A word that says nothing: a common one, or random letters, so that unknown words are known to mean nothing."""
    if rng.random() < 0.5:
        return rng.choice(wordings.OTHER_WORDS)
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))


def _insert(text: str, extra: list[str], rng: random.Random) -> str:
    """`extra` words before, after or somewhere within the text."""
    words = text.split()
    at = rng.choice((0, len(words), rng.randint(0, len(words))))
    return " ".join([*words[:at], *extra, *words[at:]])


def _misspell(text: str, rng: random.Random) -> str:
    """One letter dropped, doubled or swapped with the next, in a word that is long enough to stay readable."""
    words = text.split()
    long_words = [index for index, word in enumerate(words) if len(word) >= 5]
    if not long_words:
        return text
    index = rng.choice(long_words)
    word, at = words[index], rng.randint(1, len(words[index]) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    words[index] = rng.choice((word[:at] + word[at + 1 :], word[: at + 1] + word[at:], swapped))
    return " ".join(words)


def _article(subject: str) -> str:
    return "an" if subject[0] in "aeio" else "a"


def _favour_first(items: Sequence[Item], rng: random.Random) -> Item:
    return items[0] if rng.random() < 0.35 else rng.choice(items)


def _weighted(items: Sequence[tuple[str, float]], rng: random.Random) -> str:
    return rng.choices([text for text, _ in items], [weight for _, weight in items])[0]
