"""One step of each sampler, as the matrix that computes it.

In these functions every symbol is a row vector over the six inputs of a step (`models.sampling.table`). So a formula
reads as in its paper, and its value is the row of coefficients.
"""

import numpy as np

from models.sampling.schedule import Floats, NoiseLevels, PredictionType, VarianceType
from models.sampling.table import (
    EARLIER,
    FRESH_NOISE,
    LATENT,
    MEMORY,
    MODEL_OUTPUT,
    NUM_INPUTS,
    NUM_STATES,
    PREDICTION,
)

_INPUTS: Floats = np.eye(NUM_INPUTS)
# Below so many steps, the last step of DEIS is of first order.
_DEIS_FEW_STEPS = 15


def _predictions(levels: NoiseLevels, i: int) -> tuple[Floats, Floats]:
    """The clean latent and the noise that the transformer's output stands for, `latent = alpha clean + sigma noise`."""
    latent, output = _INPUTS[LATENT], _INPUTS[MODEL_OUTPUT]
    alpha, sigma = levels.alphas[i], levels.sigmas[i]
    match levels.prediction_type:
        case PredictionType.NOISE:
            return (latent - sigma * output) / alpha, output
        case PredictionType.CLEAN:
            return output, (latent - alpha * output) / sigma
        case PredictionType.VELOCITY:
            return alpha * latent - sigma * output, alpha * output + sigma * latent


def _step(latent: Floats, prediction: Floats, memory: Floats | None = None) -> Floats:
    """The (4, 6) matrix of one step. The last prediction becomes the earlier one."""
    rows = np.zeros((NUM_STATES, NUM_INPUTS))
    rows[LATENT] = latent
    rows[PREDICTION] = prediction
    rows[EARLIER] = _INPUTS[PREDICTION]
    if memory is not None:
        rows[MEMORY] = memory
    return rows


def ddim(levels: NoiseLevels, i: int) -> Floats:
    """Song et al. 2021 (DDIM), equation 12 with eta 0.

    Euler's method on the probability-flow ODE in the variable latent / alpha (Karras et al. 2022) is the same step.
    """
    clean, noise = _predictions(levels, i)
    return _step(levels.next_alphas[i] * clean + levels.next_sigmas[i] * noise, clean)


def euler_ancestral(levels: NoiseLevels, i: int) -> Floats:
    """Karras et al. 2022, algorithm 2 in first order: an Euler step below the next level, then noise up to it.

    In the variable latent / alpha, the ratio r = sigma / alpha is the noise level.
    """
    clean, noise = _predictions(levels, i)
    ratio, next_ratio = levels.sigmas[i] / levels.alphas[i], levels.next_sigmas[i] / levels.next_alphas[i]
    down = next_ratio**2 / ratio
    up = np.sqrt(next_ratio**2 - down**2)
    return _step(levels.next_alphas[i] * (clean + down * noise + up * _INPUTS[FRESH_NOISE]), clean)


def ddpm(levels: NoiseLevels, i: int) -> Floats:
    """Ho et al. 2020 (DDPM), equation 7, between any two levels; the last step adds no noise."""
    clean, _ = _predictions(levels, i)
    alpha, alpha_next = levels.alphas[i], levels.next_alphas[i]
    variance, variance_next = levels.sigmas[i] ** 2, levels.next_sigmas[i] ** 2
    kept = (alpha / alpha_next) ** 2
    mean = alpha_next * (1 - kept) / variance * clean + np.sqrt(kept) * variance_next / variance * _INPUTS[LATENT]
    return _step(mean + (variance_next > 0) * _INPUTS[FRESH_NOISE], clean)


def dpmpp_2m(levels: NoiseLevels, i: int) -> Floats:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2; first order at both ends."""
    clean, _ = _predictions(levels, i)
    mixed = clean
    if 0 < i < levels.num_steps - 1:
        before, now, after = levels.log_snrs[i - 1 : i + 2]
        mixed = clean + 0.5 * (after - now) / (now - before) * (clean - _INPUTS[PREDICTION])
    return _step(_exponential_step(levels, i, _INPUTS[LATENT], mixed), clean)


def unipc(levels: NoiseLevels, i: int) -> Floats:
    """Zhao et al. 2023 (UniPC), data prediction, B(h) = e^h - 1: correct this latent, then predict the next.

    The corrector redoes the step into this level, now that the prediction at this level is known.
    """
    clean, _ = _predictions(levels, i)
    corrected = _INPUTS[LATENT] if i == 0 else _unipc_corrected(levels, i, clean)
    mixed = clean
    if 0 < i < levels.num_steps - 1:
        before, now, after = levels.log_snrs[i - 1 : i + 2]
        mixed = clean + 0.5 * (after - now) / (before - now) * (_INPUTS[PREDICTION] - clean)
    return _step(_exponential_step(levels, i, corrected, mixed), clean, corrected)


def _unipc_corrected(levels: NoiseLevels, i: int, clean: Floats) -> Floats:
    """UniC of the order that the last predictor had: 1 after the first step, else 2 (equation 5 and appendix)."""
    last, earlier = _INPUTS[PREDICTION], _INPUTS[EARLIER]
    if i == 1:
        mixed = last + 0.5 * (clean - last)
        return _exponential_step(levels, i - 1, _INPUTS[MEMORY], mixed)
    before, start, end = levels.log_snrs[i - 2 : i + 1]
    h = end - start
    ratio = (before - start) / h
    # b_k = k! h phi_{k+1}(h) / B(h) at -h, as data prediction integrates e^-h; rho solves [[1, 1], [ratio, 1]] rho = b.
    phi_1 = np.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / phi_1, 2 * phi_3 / phi_1
    rho_earlier = (b_1 - b_2) / (1 - ratio)
    rho_now = b_1 - rho_earlier
    mixed = last + rho_earlier / ratio * (earlier - last) + rho_now * (clean - last)
    return _exponential_step(levels, i - 1, _INPUTS[MEMORY], mixed)


def _exponential_step(levels: NoiseLevels, i: int, latent: Floats, clean: Floats) -> Floats:
    """From level i to the next, exact for a clean prediction that is constant on the way (DPM-Solver++, equation 9)."""
    h = levels.log_snrs[i + 1] - levels.log_snrs[i]
    after: Floats = levels.next_sigmas[i] / levels.sigmas[i] * latent - levels.next_alphas[i] * np.expm1(-h) * clean
    return after


def deis(levels: NoiseLevels, i: int) -> Floats:
    """Zhang & Chen 2023 (DEIS), log-rho multistep of order 2: the noise is extrapolated in log(sigma / alpha).

    The first step is of first order, and with few steps the last one, too.
    """
    clean, noise = _predictions(levels, i)
    rho, next_rho = levels.sigmas[i] / levels.alphas[i], levels.next_sigmas[i] / levels.next_alphas[i]
    is_few_steps_end = i == levels.num_steps - 1 and levels.num_steps < _DEIS_FEW_STEPS
    if i == 0 or is_few_steps_end:
        moved = (next_rho - rho) * noise
    else:
        before = levels.sigmas[i - 1] / levels.alphas[i - 1]
        moved = _lagrange(rho, next_rho, rho, before) * noise
        moved = moved + _lagrange(rho, next_rho, before, rho) * _INPUTS[MEMORY]
    return _step(levels.next_alphas[i] * (_INPUTS[LATENT] / levels.alphas[i] + moved), clean, noise)


def _lagrange(start: float, end: float, node: float, other: float) -> float:
    """The integral from `start` to `end` of `log(rho / other) / log(node / other)`, 1 at `node` and 0 at `other`."""

    def antiderivative(rho: float) -> float:
        return float(rho * (np.log(rho / other) - 1) / np.log(node / other))

    return antiderivative(end) - antiderivative(start)


def log_variances(levels: NoiseLevels, variance_type: VarianceType) -> Floats:
    """(n, 2): bounds on the reverse variance (Nichol & Dhariwal 2021, equation 15); 0 where no noise is added.

    With a fixed variance both columns are the same, so the model's variance channels change nothing.
    """
    betas = 1 - (levels.alphas / levels.next_alphas) ** 2
    posterior = levels.next_sigmas**2 / levels.sigmas**2 * betas
    bounds = {
        VarianceType.SMALL: [posterior, posterior],
        VarianceType.LARGE: [betas, betas],
        VarianceType.LEARNED: [posterior, betas],
    }[variance_type]
    return np.log(np.where(posterior[:, None] > 0, np.stack(bounds, axis=1), 1.0))
