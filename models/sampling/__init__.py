"""Diffusion sampling: noise schedule, samplers as coefficient tables, guidance, and one batched update."""
