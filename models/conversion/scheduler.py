"""The scheduler of a diffusers folder -> the noise schedule: every setting is honoured or refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from models.checkpoint.json_file import read_json
from models.sampling.schedule import BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType

# Settings that change a trajectory, and the values that the samplers compute with.
_ONLY: dict[str, tuple[Any, ...]] = {
    "algorithm_type": ("dpmsolver++", "deis"),
    "disable_corrector": ([],),
    "euler_at_final": (False,),
    "final_sigmas_type": ("zero",),
    "interpolation_type": ("linear",),
    "lambda_min_clipped": (float("-inf"),),
    "lower_order_final": (True,),
    "predict_x0": (True,),
    "solver_order": (2,),
    "solver_type": ("midpoint", "bh2", "logrho"),
    "thresholding": (False,),
    "timestep_type": ("discrete",),
    "trained_betas": (None,),
}
# Settings without effect on our samplers: clipping, which the published sampling switches off, details of what is
# refused above, and the warm-up of PNDM, which is not offered.
_WITHOUT_EFFECT = {
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "sample_max_value",
    "skip_prk_steps",
    "time_shift_type",
}
_KINDS: dict[str, Any] = {
    "beta_schedule": BetaSchedule,
    "prediction_type": PredictionType,
    "timestep_spacing": Spacing,
    "variance_type": VarianceType,
}
_HONOURED = {field.name for field in fields(NoiseSchedule)}


def read_schedule(path: Path) -> NoiseSchedule:
    """The schedule in a `scheduler_config.json`; the published one if there is no such file.

    Raises ValueError, by name, for a setting that the samplers do not follow.
    """
    if not path.is_file():
        return NoiseSchedule(timestep_spacing=Spacing.LEADING)
    settings = read_json(path)
    # diffusers leaves these to the defaults of the sampler that is chosen.
    left_out = set(settings.get("_use_default_values", ()))
    values = {}
    for name, value in settings.items():
        if name.startswith("_") or name in left_out:
            continue
        if name in _HONOURED:
            values[name] = _read(path, name, value)
        elif name in _ONLY:
            _check(path, name, value)
        elif name not in _WITHOUT_EFFECT and value not in (None, False, 0):
            raise ValueError(f"{path}: {name} is {value!r}, a setting that the samplers do not know")
    return NoiseSchedule(**values)


def _read(path: Path, name: str, value: Any) -> Any:
    kind = _KINDS.get(name)
    if kind is None or value is None:
        return value
    if value not in [str(known) for known in kind]:
        raise ValueError(f"{path}: {name} is {value!r}; supported are {', '.join(kind)}")
    return kind(value)


def _check(path: Path, name: str, value: Any) -> None:
    if value not in _ONLY[name]:
        allowed = " or ".join(repr(allowed) for allowed in _ONLY[name])
        raise ValueError(f"{path}: {name} is {value!r}; only {allowed} is supported")
