"""LoRA adapters by name: read, checked against a model, and applied to single rows of a pass.

The weights of the model are never changed.
"""
