"""Record golden files of what the published files leave out: `python -m tests.golden.record`.

The class family is computed here plainly, in float64 and by the names of a published state dict, without any code of
`models`. Trust in it comes from the published files, whose outputs it reproduces (`test_record.py`).

Shapes: B batch, T frames, N tokens of a frame, D width, S sequences of L tokens, C H W latent.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

FOLDER = Path(__file__).parent
State = Mapping[str, Tensor]

_SIZES = {
    "depth": 4,
    "hidden_size": 32,
    "patch_size": 2,
    "input_size": 8,
    "num_classes": 5,
    "num_frames": 4,
    "in_channels": 4,
    "extras": 2,
}
_LOCAL = _SIZES | {"family": "Latte", "num_heads": 4}
_MATRIX = _SIZES | {
    "family": "FrameDiT-G",
    "num_row_heads": 4,
    "num_col_heads": 4,
    "qk_col_dim": 8,
    "v_col_dim": 16,
}
# `own_` keeps them apart from the published files.
MODELS = {
    "own_g_sparse": _MATRIX | {"u_type": "sparse", "learn_sigma": True},
    "own_local_flash": _LOCAL | {"attention_mode": "flash", "learn_sigma": True},
    "own_local_without_variance": _LOCAL | {"learn_sigma": False},
}
_SAMPLING = {
    "model": "own_local_without_variance.safetensors",
    "steps": 10,
    "cfg_scale": 1.0,
    "noise_schedule": "linear",
    "diffusion_steps": 1000,
    "learn_sigma": False,
}
SAMPLERS = {
    "sampler_own_ddim_clean": _SAMPLING | {"method": "ddim", "prediction": "sample"},
    "sampler_own_ddim_velocity": _SAMPLING | {"method": "ddim", "prediction": "v_prediction"},
    "sampler_own_ddpm_small": _SAMPLING | {"method": "ddpm", "prediction": "epsilon", "variance": "fixed_small"},
    "sampler_own_ddpm_large": _SAMPLING | {"method": "ddpm", "prediction": "sample", "variance": "fixed_large"},
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    states: dict[str, State] = {}
    for name, settings in MODELS.items():
        states[f"{name}.safetensors"] = state = random_state(settings, generator)
        inputs = {
            "x": torch.randn(2, 4, 4, 8, 8, generator=generator),
            "t": torch.tensor([17, 803]),
            "y": torch.tensor([1, 4]),
        }
        out = forward(settings, state, inputs["x"], inputs["t"], inputs["y"])
        _save(
            name, settings, {f"state.{k}": v for k, v in state.items()} | _named("in.", inputs) | {"out": out.float()}
        )
    for name, settings in SAMPLERS.items():
        model_settings = MODELS[settings["model"].removesuffix(".safetensors")]
        start = torch.randn(1, 4, 4, 8, 8, generator=generator)
        noises = torch.randn(settings["steps"], 4, 4, 8, 8, generator=generator)
        label = torch.tensor([2])
        timesteps, out = sample(settings, model_settings, states[settings["model"]], start, noises, label)
        tensors = {"z": start, "noises": noises, "label": label, "timesteps": timesteps, "out": out.float()}
        _save(name, settings, tensors)


def _named(prefix: str, tensors: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _save(name: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(contiguous, FOLDER / f"{name}.safetensors", {"config": json.dumps(settings)})


def random_state(settings: Mapping[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    """A published state dict with random weights, in float32."""
    width, patch, channels = settings["hidden_size"], settings["patch_size"], settings["in_channels"]
    tokens = (settings["input_size"] // patch) ** 2
    out_channels = channels * (2 if settings["learn_sigma"] else 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(math.prod(shape[1:]) or 1)

    def linear(name: str, out: int, fan_in: int) -> dict[str, Tensor]:
        return {f"{name}.weight": normal(out, fan_in), f"{name}.bias": 0.1 * normal(out)}

    state = {
        "x_embedder.proj.weight": normal(width, channels, patch, patch),
        "x_embedder.proj.bias": 0.1 * normal(width),
        **linear("t_embedder.mlp.0", width, 256),
        **linear("t_embedder.mlp.2", width, width),
        "y_embedder.embedding_table.weight": normal(settings["num_classes"] + 1, width) * math.sqrt(width),
        "pos_embed": 0.5 * torch.randn(1, tokens, width, generator=generator),
        "temp_embed": 0.5 * torch.randn(1, settings["num_frames"], width, generator=generator),
        **linear("final_layer.adaLN_modulation.1", 2 * width, width),
        **linear("final_layer.linear", patch * patch * out_channels, width),
    }
    for index in range(settings["depth"]):
        block = f"blocks.{index}"
        state |= linear(f"{block}.adaLN_modulation.1", 6 * width, width)
        state |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
        if settings["family"] == "FrameDiT-G" and index % 2:
            mapped = {"linear_q": settings["qk_col_dim"], "linear_k": settings["qk_col_dim"]}
            for name in ("linear_q", "linear_k", "linear_v", "proj_v"):
                out_tokens = tokens if name == "proj_v" else mapped.get(name, settings["v_col_dim"])
                in_tokens = settings["v_col_dim"] if name == "proj_v" else tokens
                state[f"{block}.attn.{name}.u"] = torch.randn(in_tokens, out_tokens, generator=generator)
                state[f"{block}.attn.{name}.u_mask"] = (
                    torch.rand(in_tokens, out_tokens, generator=generator) < 0.5
                ).float()
                state[f"{block}.attn.{name}.w"] = normal(width, width)
                state[f"{block}.attn.{name}.bias"] = 0.1 * normal(out_tokens, width)
        else:
            state |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
    return state


@torch.no_grad()
def forward(settings: Mapping[str, Any], state: State, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """(B, T, C, H, W), timesteps (B,) and labels (B,) -> (B, T, C', H, W), float64."""
    state = {name: tensor.double() for name, tensor in state.items()}
    b, frames = x.shape[:2]
    patch = settings["patch_size"]
    patches = F.conv2d(x.double().flatten(0, 1), state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], patch)
    tokens = patches.flatten(2).transpose(1, 2).unflatten(0, (b, frames)) + state["pos_embed"]  # (B, T, N, D)
    condition = _embed_timesteps(state, t)
    if y is not None:
        condition = condition + state["y_embedder.embedding_table.weight"][y]
    for index in range(settings["depth"]):
        is_temporal = index % 2 == 1
        if index == 1:
            tokens = tokens + state["temp_embed"][0, :, None]
        tokens = _block(settings, _below(state, f"blocks.{index}."), tokens, condition, is_temporal)
    shift, scale = _modulation(_below(state, "final_layer."), condition).chunk(2, dim=-1)
    out = _linear(_below(state, "final_layer.linear."), _norm(tokens) * (1 + scale) + shift)
    grid = settings["input_size"] // patch
    images = out.view(b, frames, grid, grid, patch, patch, -1).permute(0, 1, 6, 2, 4, 3, 5)
    return images.reshape(b, frames, -1, grid * patch, grid * patch)


def _embed_timesteps(state: State, t: Tensor) -> Tensor:
    frequencies = torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    angles = t.double()[:, None] * frequencies
    hidden = _linear(_below(state, "t_embedder.mlp.0."), torch.cat([angles.cos(), angles.sin()], dim=-1))
    return _linear(_below(state, "t_embedder.mlp.2."), F.silu(hidden))


def _block(settings: Mapping[str, Any], state: State, x: Tensor, condition: Tensor, is_temporal: bool) -> Tensor:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = _modulation(state, condition).chunk(6, dim=-1)
    x = x + gate_a * _attend(settings, _below(state, "attn."), _norm(x) * (1 + scale_a) + shift_a, is_temporal)
    hidden = F.gelu(_linear(_below(state, "mlp.fc1."), _norm(x) * (1 + scale_m) + shift_m), approximate="tanh")
    return x + gate_m * _linear(_below(state, "mlp.fc2."), hidden)


def _attend(settings: Mapping[str, Any], state: State, x: Tensor, is_temporal: bool) -> Tensor:
    if is_temporal and settings["family"] == "FrameDiT-G":
        return _matrix_attention(settings, state, x)
    sequences = x.transpose(1, 2) if is_temporal else x
    out = _self_attention(settings, state, sequences.flatten(0, 1)).view_as(sequences)
    return out.transpose(1, 2) if is_temporal else out


def _self_attention(settings: Mapping[str, Any], state: State, x: Tensor) -> Tensor:
    """(S, L, D) -> (S, L, D). The published mode `flash` takes the heads, one under the other, for the tokens."""
    num_heads = settings["num_heads" if settings["family"] == "Latte" else "num_row_heads"]
    heads = []
    q, k, v = _linear(_below(state, "qkv."), x).chunk(3, dim=-1)
    for a, b, c in zip(*(part.chunk(num_heads, dim=-1) for part in (q, k, v)), strict=True):
        heads.append((a @ b.transpose(1, 2) / math.sqrt(a.shape[-1])).softmax(-1) @ c)
    if settings.get("attention_mode") == "flash":
        joined = torch.stack(heads, dim=1).reshape(x.shape)
    else:
        joined = torch.cat(heads, dim=-1)
    return _linear(_below(state, "proj."), joined)


def _matrix_attention(settings: Mapping[str, Any], state: State, x: Tensor) -> Tensor:
    """(B, T, N, D) -> (B, T, N, D): each pair of a column head and a row head attends between frames."""
    q, k, v = (_matrix_linear(settings, _below(state, f"linear_{part}."), x) for part in "qkv")
    columns, rows = settings["num_col_heads"], settings["num_row_heads"]
    bands = []
    for parts in zip(*(part.chunk(columns, dim=2) for part in (q, k, v)), strict=True):
        heads = []
        for a, b, c in zip(*(part.chunk(rows, dim=3) for part in parts), strict=True):
            scores = a.flatten(2) @ b.flatten(2).transpose(1, 2) / math.sqrt(a.shape[2] * a.shape[3])
            heads.append((scores.softmax(-1) @ c.flatten(2)).view_as(c))
        bands.append(torch.cat(heads, dim=3))
    return _matrix_linear(settings, _below(state, "proj_v."), torch.cat(bands, dim=2))


def _matrix_linear(settings: Mapping[str, Any], state: State, x: Tensor) -> Tensor:
    u = state["u"] * state["u_mask"] if settings.get("u_type") == "sparse" else state["u"]
    return u.t() @ x @ state["w"] + state["bias"]


def _modulation(state: State, condition: Tensor) -> Tensor:
    """(B, 1, 1, k D)."""
    return _linear(_below(state, "adaLN_modulation.1."), F.silu(condition))[:, None, None]


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _linear(state: State, x: Tensor) -> Tensor:
    return x @ state["weight"].t() + state["bias"]


def _below(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def sample(
    settings: Mapping[str, Any],
    model_settings: Mapping[str, Any],
    state: State,
    start: Tensor,
    noises: Tensor,
    label: Tensor,
) -> tuple[Tensor, Tensor]:
    """The rising timesteps of the spaced process (Nichol & Dhariwal 2021), and the latents after all steps."""
    betas = torch.linspace(1e-4, 2e-2, settings["diffusion_steps"], dtype=torch.float64)
    all_alphas = torch.cumprod(1 - betas, dim=0)
    stride = (settings["diffusion_steps"] - 1) / (settings["steps"] - 1)
    timesteps = [round(stride * i) for i in range(settings["steps"])]
    signal = [float(all_alphas[t]) for t in timesteps]  # alphas_cumprod of the spaced process
    x = start.double()
    for i, fresh in zip(reversed(range(settings["steps"])), noises.double(), strict=True):
        output = forward(model_settings, state, x, torch.tensor([timesteps[i]]), label)
        alpha, sigma = math.sqrt(signal[i]), math.sqrt(1 - signal[i])
        clean = {
            "epsilon": lambda out, x=x, a=alpha, s=sigma: (x - s * out) / a,
            "sample": lambda out: out,
            "v_prediction": lambda out, x=x, a=alpha, s=sigma: a * x - s * out,
        }[settings["prediction"]](output)
        before = signal[i - 1] if i else 1.0
        if settings["method"] == "ddim":
            x = math.sqrt(before) * clean + math.sqrt(1 - before) * (x - alpha * clean) / sigma
        else:
            x = _ancestral_step(settings["variance"], signal, i, x, clean, fresh)
    return torch.tensor(timesteps), x


def _ancestral_step(variance: str, signal: list[float], i: int, x: Tensor, clean: Tensor, fresh: Tensor) -> Tensor:
    """A step of q(x before | x, clean) (Ho et al. 2020, equations 6 and 7)."""
    before = signal[i - 1] if i else 1.0
    beta = 1 - signal[i] / before
    mean = math.sqrt(before) * beta * clean + math.sqrt(1 - beta) * (1 - before) * x
    mean = mean / (1 - signal[i])
    if i == 0:
        return mean
    posterior = beta * (1 - before) / (1 - signal[i])
    return mean + math.sqrt(posterior if variance == "fixed_small" else beta) * fresh


if __name__ == "__main__":
    main()
