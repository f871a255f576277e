"""The T5 text encoder and its tokenizer."""
