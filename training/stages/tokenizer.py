"""A small byte-level BPE tokenizer made from the prompts: any text can be encoded, common words are one token."""

import random
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from models.t5.tokenizer import TextTokenizer
from training.world import prompts, wordings
from training.world.scenes import draw_scenes

VOCABULARY_SIZE = 1024
MAX_TOKENS = 40
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def make_tokenizer(num_prompts: int = 20_000, seed: int = 0) -> TextTokenizer:
    """A tokenizer for the demo world's prompts."""
    return train_tokenizer(_corpus(num_prompts, seed))


def train_tokenizer(corpus: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> TextTokenizer:
    """A tokenizer that lower-cases, splits bytes and words, and ends every text with </s> as T5's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    return TextTokenizer(tokenizer, PAD)


def _corpus(num_prompts: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for scene in draw_scenes(num_prompts, seed).words():
        yield prompts.describe(scene, rng).text
    yield from wordings.OTHER_WORDS
