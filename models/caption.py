"""Caption cleaning of the published text-to-video pipeline: HTML, URLs, handles, sizes, odd punctuation.

Latte and FrameDiT-H-T2V clean every prompt before they tokenize it. diffusers keeps the same function in its Latte
pipeline, with beautifulsoup4 and ftfy underneath.
"""

from __future__ import annotations

import warnings
from typing import Any

from bs4 import MarkupResemblesLocatorWarning
from diffusers.pipelines.latte.pipeline_latte import LattePipeline

# A prompt that looks like a file name is no mistake of ours.
warnings.filterwarnings("ignore", category=MarkupResemblesLocatorWarning)

# Without __init__: it loads models, and the text functions use none.
_PIPELINE: Any = object.__new__(LattePipeline)


def clean_caption(caption: str) -> str:
    """Clean `caption`, twice as published: one pass can uncover what the next one removes. The result may be empty."""
    cleaned: list[str] = _PIPELINE._text_preprocessing(caption, clean_caption=True)
    return cleaned[0]
