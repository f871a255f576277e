import pytest

from models.caption import clean_caption


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("  A Red Circle\n", "a red circle"),
        ("a cat &amp; a dog", "a cat a dog"),
        ("a <b>bold</b> cat<br>", "a bold cat"),
        ("a cat, example.com/cats at home", "a cat, at home"),
        ("a cat by @somebody", "a cat by"),
        ("a \u201cquoted\u201d cat\u2019s tail \u2014 long", 'a "quoted" cat\'s tail - long'),
        ("a cat (in the sun) #1 [4k] {raw} cat/dog", "a cat in the sun 4k raw cat dog"),
        ("a cat 1920x1080", "a cat"),
        ("a_cat-in_the-sun", "a cat in the sun"),
        ("\u732b a cat", "a cat"),
        ("cat.png of 123456 cats", "of cats"),
        ("caf%C3%A9+noir", "caf\u00e9 noir"),
        ("", ""),
    ],
)
def test_cleans_captions_as_the_published_pipeline(caption: str, cleaned: str) -> None:
    assert clean_caption(caption) == cleaned


def test_a_plain_prompt_is_lower_cased_and_stripped_alone() -> None:
    prompt = "A yellow fish darts through the sea, chased by two blue fish."
    assert clean_caption(prompt) == prompt.lower()
