import random

from training.world import prompts
from training.world.scenes import ATTRIBUTES, VOCABULARY, Scene, Split, draw_scenes
from training.world.wordings import HELD_OUT_PATTERNS, PATTERNS, SHAPE_WORDS

SCENE = Scene("orange", "star", "moving up", "navy", "large")


def test_the_grammar_is_that_of_the_readme() -> None:
    assert prompts.canonical(SCENE) == "a large orange star moving up on a navy background"
    assert prompts.canonical(SCENE, with_size=False) == "an orange star moving up on a navy background"


def test_wordings_vary() -> None:
    rng = random.Random(0)
    assert len({prompts.sample(SCENE, rng) for _ in range(300)}) > 200


def test_the_same_random_numbers_give_the_same_words() -> None:
    assert prompts.sample(SCENE, random.Random(5)) == prompts.sample(SCENE, random.Random(5))


def test_every_scene_can_be_worded_with_no_gap_left() -> None:
    rng = random.Random(1)
    for held_out in (False, True):
        for scene in draw_scenes(2000, seed=1, split=Split.ALL).words():
            text = prompts.describe(scene, rng, held_out).text
            assert text == " ".join(text.split())
            assert not set("{}") & set(text)
            assert " ," not in text


def test_a_prompt_says_the_scene_or_nothing() -> None:
    rng = random.Random(2)
    omitted = dict.fromkeys(ATTRIBUTES, 0)
    for scene in draw_scenes(1000, seed=2, split=Split.ALL).words():
        for name, word in prompts.describe(scene, rng).said.items():
            assert word in (None, getattr(scene, name))
            omitted[name] += word is None
    assert all(0 < count < 600 for count in omitted.values())


def test_a_wording_that_says_the_shape_has_a_word_for_it() -> None:
    rng = random.Random(3)
    for scene in draw_scenes(1000, seed=3, split=Split.ALL).words():
        wording = prompts.describe(scene, rng)
        has_word = any(word in wording.text.lower() for word in SHAPE_WORDS[scene.shape])
        # "square shape" is a square, and a bare "shape" is none.
        assert has_word == (wording.said["shape"] is not None)


def test_targets_count_the_unspecified_last() -> None:
    wording = prompts.Wording("a star", dict.fromkeys(ATTRIBUTES) | {"shape": "star"})
    assert wording.targets() == [8, 3, len(VOCABULARY["motion"]), 4, 2]


def test_held_out_sentences_are_not_in_training() -> None:
    assert not set(HELD_OUT_PATTERNS) & set(PATTERNS)


def test_typing_errors_change_the_text_and_not_its_meaning() -> None:
    rng = random.Random(4)
    wording = prompts.describe(SCENE, rng)
    disturbed = [prompts.disturb(wording, rng) for _ in range(200)]
    assert len({each.text for each in disturbed}) > 50
    emptied = [each for each in disturbed if each.said != wording.said]
    assert all(set(each.said.values()) == {None} for each in emptied)
    assert len(emptied) < 20
