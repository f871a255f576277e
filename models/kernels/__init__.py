"""Code for one kind of device: Triton kernels, and the forward passes that use them.

The modules of `models` in plain PyTorch are the reference, and what runs wherever these cannot.
"""
