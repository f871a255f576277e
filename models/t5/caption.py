"""Caption cleaning of the published text-to-video pipeline: HTML, URLs, handles, sizes, odd punctuation.

Latte and FrameDiT-H-T2V clean every prompt before they tokenize it, with rules that were written for the captions of
pictures on the web. The rules below have the effect of the published ones; the tests compare both.
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Sequence
from urllib.parse import unquote_plus

# The warning of beautifulsoup4 about a prompt that looks like a file name or a URL. It is no mistake of ours.
warnings.filterwarnings("ignore", message=r"\s*The input (passed in on this line )?looks more like")

Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> Sequence[Rule]:
    """Patterns and what to put in their place, applied in this order."""
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


_DOMAIN = r"[a-zA-Z0-9.-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_AFTER_COLON = r"(?:/{1,3}|[a-zA-Z0-9%])"
_FILE_TYPES = "(?:png|jpe?g|bmp|webp|eps|pdf|apk|mp4)"
_IS_DASH = re.compile("[-_]")
_MAX_DASHES = 3  # with more of them, they stand for the spaces between words

_LINKS = _rules(
    (rf"\b(?:https?:{_AFTER_COLON}|{_DOMAIN})", ""),
    (rf"\b(?:www:{_AFTER_COLON}|{_DOMAIN})", ""),
)

_QUOTES = str.maketrans(
    dict.fromkeys("`\u00b4\u00ab\u00bb\u201c\u201d\u00a8", '"') | dict.fromkeys("\u2018\u2019", "'")
)

_HANDLES_AND_SCRIPTS = _rules(
    (r"@\w+\b", ""),  # @somebody
    ("[\u31c0-\u9fff]+", ""),  # strokes, enclosed letters, hexagrams and ideographs of Chinese, Japanese and Korean
    # Every dash is a hyphen, and so are several of them.
    (
        "[\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58"
        "\ufe63\uff0d]+",
        "-",
    ),
)

_NUMBERS_AND_PUNCTUATION = _rules(
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),  # article numbers
    (r"\\n", " "),
    (r"#(?:\d{1,3}|\d{5,})\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.{_FILE_TYPES}", ""),  # file names
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\[\]{}|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)

_CODES_AND_PHRASES = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b{_FILE_TYPES}(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[x\u0445\u00d7]\d+\.?\d*\b", ""),  # 1920x1080
)

_SPACES_AND_EDGES = _rules(
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    ("^[-'_,:;]", ""),
    ("[-'_,:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_caption(caption: str) -> str:
    """Clean `caption`, twice as published: one pass can uncover what the next one removes. The result may be empty.

    Raises ValueError for HTML that no parser takes.
    """
    return _clean(_clean(caption))


def _clean(caption: str) -> str:
    import ftfy  # like beautifulsoup4, too slow to import for a process that cleans nothing

    text = unquote_plus(caption).strip().lower().replace("<person>", "person")
    text = _text_of_html(_apply(_LINKS, text))
    text = _apply(_HANDLES_AND_SCRIPTS, text).translate(_QUOTES)
    text = _apply(_NUMBERS_AND_PUNCTUATION, text)
    if len(_IS_DASH.findall(text)) > _MAX_DASHES:
        text = _IS_DASH.sub(" ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _apply(_SPACES_AND_EDGES, _apply(_CODES_AND_PHRASES, text)).strip()


def _apply(rules: Sequence[Rule], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _text_of_html(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    try:
        return BeautifulSoup(text, "html.parser").text
    except ParserRejectedMarkup as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"the caption holds broken HTML ({reason}): send it without HTML, or do not clean it"
        ) from error
