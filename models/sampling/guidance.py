"""Classifier-free guidance over a batch (Ho & Salimans 2022).

A request with guidance takes two rows of the model's batch (with its condition, and with the null one), a request
without takes one. B requests, M model rows, T frames, C H W latent.
"""

import torch


def guide(
    outputs: torch.Tensor,
    conditional: torch.Tensor,
    unconditional: torch.Tensor,
    scales: torch.Tensor,
    channels: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Predicted noise (B, T, C, H, W) and variance channels (the same, or None where the model has none).

    `outputs` (M, T, C or 2C, H, W) are the model's; `conditional` and `unconditional` (B,) int64 are the rows of each
    request in it, and `scales` (B,) the guidance scales. A request without guidance names its one row twice with scale
    1, which leaves that row exactly as it is. Guidance moves the first `channels` = C channels alone: the variance is
    that of the conditional row.
    """
    chosen = outputs[conditional]
    baseline = outputs[unconditional, :, :channels]
    noise = baseline + scales.view(-1, 1, 1, 1, 1) * (chosen[:, :, :channels] - baseline)
    return noise, chosen[:, :, channels:] if outputs.shape[2] > channels else None


def guidance_difference(
    outputs: torch.Tensor, conditional: torch.Tensor, unconditional: torch.Tensor, channels: int
) -> torch.Tensor:
    """(B, T, C, H, W): the conditional minus the unconditional output. Arguments as in `guide`.

    A later step that computes the conditional row alone adds it, times the guidance scale minus 1.
    """
    return outputs[conditional, :, :channels] - outputs[unconditional, :, :channels]
