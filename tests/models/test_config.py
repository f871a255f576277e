"""Configs: what is no model, and the way to JSON and back."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from tests.models.transformers import make_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 18, "heads": 4}, "width 18 must be a multiple of heads 4"),
        ({"width": 18}, "width 18 must be a multiple of 4"),
        ({"latent_size": 5}, "latent_size 5 must be a multiple of patch_size 2"),
        ({"depth": 3}, "an alternating depth must be even, not 3"),
        ({"num_classes": None}, "num_classes is None with conditioning 'class'"),
        ({"conditioning": Conditioning.NONE}, "num_classes is 3 with conditioning 'none'"),
        ({"conditioning": Conditioning.TEXT, "num_classes": None}, "text_width is None with conditioning 'text'"),
        ({"text_width": 12}, "text_width is 12 with conditioning 'class'"),
        ({"matrix": None}, "temporal 'hybrid', layout 'alternating': matrix sizes are missing"),
        ({"temporal": Temporal.LOCAL, "fuse": None}, "temporal 'local', layout 'alternating': matrix sizes have no"),
        ({"fuse": None}, "fuse is None: hybrid models need it"),
        ({"temporal": Temporal.MATRIX}, "fuse is concat: hybrid models need it, and no others have it"),
        (
            {"matrix": MatrixAttentionConfig(column_heads=2, row_heads=3, qk_tokens=2, v_tokens=4)},
            "width 16 must be a multiple of the matrix attention's row_heads",
        ),
    ],
)
def test_refuses_other_files(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"not a FrameDiT model: {re.escape(message)}"):
        replace(make_config(), **changes)


@pytest.mark.parametrize("name", ["qk_tokens", "v_tokens"])
def test_refuses_tokens_that_heads_cannot_share(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 3: it must be a multiple of column_heads, 2"):
        MatrixAttentionConfig(**{"column_heads": 2, "row_heads": 2, "qk_tokens": 2, "v_tokens": 2, name: 3})


def test_a_joint_depth_may_be_odd() -> None:
    joint = make_config(layout=Layout.JOINT, temporal=Temporal.LOCAL, matrix=None, fuse=None, depth=3)
    assert [joint.is_temporal(block) for block in range(3)] == [False] * 3
    assert [make_config().is_temporal(block) for block in range(4)] == [False, True, False, True]


def test_derived_sizes() -> None:
    assert make_config().tokens_per_frame == 4
    assert make_config().out_channels == 8
    assert make_config(learn_sigma=False).out_channels == 4


@pytest.mark.parametrize("conditioning", Conditioning)
def test_survives_json(conditioning: Conditioning) -> None:
    config = make_config(conditioning, fuse=Fuse.GATED)
    assert TransformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"colour": 1},
            "unknown transformer setting colour; known are attention_mode, clean_known_frames",
        ),
        ({"layout": "diagonal"}, "'diagonal' is not a valid Layout"),
        ({"matrix": {"column_heads": 2}}, "incomplete transformer settings"),
        ({"depth": 3}, "an alternating depth must be even"),
    ],
)
def test_from_dict_names_wrong_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig.from_dict(make_config().to_dict() | changes)


def test_from_dict_names_missing_keys() -> None:
    values = make_config().to_dict()
    del values["width"]
    with pytest.raises(ValueError, match=r"incomplete transformer settings: .*'width'"):
        TransformerConfig.from_dict(values)
