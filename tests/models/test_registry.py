"""Published model names and settings."""

import re
from typing import Any

import pytest

from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal
from models.registry import BiasKind, PublishedModel, TokenMixing, from_class_settings, from_text_settings
from models.registry import published_model as model_of
from tests.golden.loading import read_golden
from tests.models.conversion.sources import GOLDEN


def published_model(name: str, num_classes: int | None = 101) -> PublishedModel:
    return model_of(name, num_frames=16, image_size=256, num_classes=num_classes)


@pytest.mark.parametrize(
    ("name", "layout", "temporal", "fuse", "mixing"),
    [
        ("FrameDiTH-S/128-512/2", Layout.ALTERNATING, Temporal.HYBRID, Fuse.CONCAT, TokenMixing.PARAM),
        ("FrameDiTH-S/128-512/2-concat", Layout.ALTERNATING, Temporal.HYBRID, Fuse.CONCAT, TokenMixing.PARAM),
        ("FrameDiTH-S/128-512/2-softmax_u-gated", Layout.ALTERNATING, Temporal.HYBRID, Fuse.GATED, TokenMixing.SOFTMAX),
        ("FrameDiTHIMG-S/128-512/2-sum", Layout.ALTERNATING, Temporal.HYBRID, Fuse.SUM, TokenMixing.PARAM),
        ("FrameDiTH-S/128-512/2-local", Layout.ALTERNATING, Temporal.LOCAL, None, TokenMixing.PARAM),
        ("FrameDiTG-S/128-512/2", Layout.ALTERNATING, Temporal.MATRIX, None, TokenMixing.PARAM),
        ("FrameDiTG-S/128-512/2-normalized_l1_u", Layout.ALTERNATING, Temporal.MATRIX, None, TokenMixing.NORMALIZED_L1),
        ("Latte-S/2", Layout.ALTERNATING, Temporal.LOCAL, None, TokenMixing.PARAM),
        ("LatteIMG-S/4", Layout.ALTERNATING, Temporal.LOCAL, None, TokenMixing.PARAM),
        ("DiT3D-S/8", Layout.JOINT, Temporal.LOCAL, None, TokenMixing.PARAM),
    ],
)
def test_names_of_the_class_family(
    name: str, layout: Layout, temporal: Temporal, fuse: Fuse | None, mixing: TokenMixing
) -> None:
    model = published_model(name)
    config = model.config
    assert (config.layout, config.temporal, config.fuse, model.mixing) == (layout, temporal, fuse, mixing)
    assert (config.depth, config.width, config.heads) == (12, 384, 6)
    assert (config.conditioning, config.num_classes, config.num_frames) == (Conditioning.CLASS, 101, 16)
    assert (config.latent_size, config.latent_channels, config.learn_sigma) == (32, 4, True)
    assert config.patch_size == int(re.findall(r"/(\d)", name)[-1])
    matrix = MatrixAttentionConfig(column_heads=64, row_heads=6, qk_tokens=128, v_tokens=512)
    assert config.matrix == (None if temporal is Temporal.LOCAL else matrix)
    assert model.bias is BiasKind.MATRIX


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("FrameDiTH-XL/128-512/2", (28, 1152, 16)),
        ("FrameDiTG-L/128-512/2", (24, 1024, 16)),
        ("Latte-B/2", (12, 768, 12)),
        ("DiT3D-M/2", (12, 1024, 16)),
    ],
)
def test_sizes(name: str, sizes: tuple[int, int, int]) -> None:
    config = published_model(name).config
    assert (config.depth, config.width, config.heads) == sizes


@pytest.mark.parametrize("num_classes", [None, 0])
def test_no_classes_is_unconditional(num_classes: int | None) -> None:
    config = published_model("Latte-S/2", num_classes=num_classes).config
    assert (config.conditioning, config.num_classes) == (Conditioning.NONE, None)


def test_names_of_the_text_family() -> None:
    hybrid = model_of("FrameDiTHT2V-XL/256-2-1-2-concat", num_frames=16, image_size=512, num_classes=None)
    config = hybrid.config
    assert (config.conditioning, config.temporal, config.fuse) == (Conditioning.TEXT, Temporal.HYBRID, Fuse.CONCAT)
    assert (config.depth, config.width, config.text_width, config.latent_size) == (56, 1152, 4096, 64)
    assert config.matrix == MatrixAttentionConfig(column_heads=512, row_heads=16, qk_tokens=512, v_tokens=1024)
    assert (hybrid.mixing, hybrid.bias, hybrid.hybrid_names) == (TokenMixing.PURE_SOFTMAX, BiasKind.COL_ROW, True)
    latte = model_of("LatteT2V", num_frames=16, image_size=512, num_classes=None)
    assert (latte.config.temporal, latte.config.matrix, latte.hybrid_names) == (Temporal.LOCAL, None, False)
    assert latte.config.depth == 56


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Latte",
        "Latte-XXL/2",
        "Latte-S",
        "Latte-S/128-512/2",
        "FrameDiTH-S/2",
        "FrameDiTH-M/128-512/2",
        "FrameDiTX-S/128-512/2",
        "FrameDiTHT2V-S/2",
        "latte-s/2",
        "Latte-S/2 ",
    ],
)
def test_an_unknown_name_says_which_are_known(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"unknown model name {name!r}: known forms are FrameDiTH-SIZE")):
        published_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FrameDiTH-S/128-512/2-hardmax_u", "u_type is 'hardmax'; known are param, softmax"),
        ("FrameDiTH-S/128-512/2-product", "'product' is not a valid Fuse"),
        ("FrameDiTH-S/100-512/2", "qk_tokens is 100: it must be a multiple of column_heads, 64"),
        ("Latte-S/5", "latent_size 32 must be a multiple of patch_size 5"),
    ],
)
def test_an_impossible_part_of_a_name_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published_model(name)


def settings_of(golden: str, **changes: Any) -> dict[str, Any]:
    return read_golden(GOLDEN / f"{golden}.safetensors")[0] | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "FrameDiT-Z"}, "family is 'FrameDiT-Z'; known are FrameDiT-H, FrameDiT-G, Latte, DiT3D"),
        ({"extras": 78}, r"extras is 78: 1 \(unconditional\) and 2 \(class-conditional\) are supported"),
        ({"bias_type": "diagonal"}, "bias_type is 'diagonal'; known are matrix, row"),
    ],
)
def test_class_settings_that_are_not_supported(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_class_settings(settings_of("framedit_h_concat", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "FrameDiT-H"}, "family is 'FrameDiT-H'; known are LatteT2V, FrameDiT-H-T2V"),
        ({"norm_type": "layer_norm"}, "norm_type is 'layer_norm': text models are supported with 'ada_norm_single'"),
        ({"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ({"norm_eps": 1e-5}, "norm_eps is 1e-05"),
        ({"sample_size": 128}, "sample_size is 128: PixArt-alpha's size and aspect-ratio"),
        ({"u_type": "hardmax"}, "u_type is 'hardmax'"),
    ],
)
def test_text_settings_that_are_not_supported(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_text_settings(settings_of("framedit_h_t2v", **changes))
