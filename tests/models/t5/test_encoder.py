"""Our T5 encoder against transformers', on the same weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config as TransformersConfig
from transformers import T5EncoderModel, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from models.checkpoint.text_encoder import load_encoder, read_encoder_config, save_encoder
from models.t5.config import T5Config
from models.t5.encoder import T5Encoder, distance_buckets
from tests.models.transformers_parts import as_transformers

SMALL = T5Config(vocab_size=64, d_model=32, d_kv=12, d_ff=48, num_layers=3, num_heads=4, dropout_rate=0.3)
CONFIGS = {
    "relu": SMALL,
    "gated-gelu": replace(SMALL, feed_forward_proj="gated-gelu"),
    "other distances": replace(SMALL, relative_attention_num_buckets=12, relative_attention_max_distance=20),
    "other eps": replace(SMALL, layer_norm_epsilon=0.1),
}
MASK = torch.arange(40) < torch.tensor([[40], [7], [1]])


def make(config: T5Config) -> T5Encoder:
    torch.manual_seed(0)
    encoder = T5Encoder(config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def tokens_of(config: T5Config) -> torch.Tensor:
    return torch.randint(config.vocab_size, MASK.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_encodes_as_transformers(name: str) -> None:
    encoder = make(CONFIGS[name])
    tokens = tokens_of(encoder.config)
    expected = as_transformers(encoder)(input_ids=tokens, attention_mask=MASK).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder(tokens, MASK), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "gated-gelu"])
@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(name: str) -> None:
    encoder = make(CONFIGS[name])
    tokens = tokens_of(encoder.config)
    expected = encoder(tokens, MASK)
    theirs = as_transformers(encoder.bfloat16())(input_ids=tokens, attention_mask=MASK).last_hidden_state
    ours = encoder(tokens, MASK)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    error, their_error = ((states.float() - expected).norm() / expected.norm() for states in (ours, theirs))
    assert error < 0.05
    assert error < 1.2 * their_error


def test_training_computes_the_gradients_of_transformers() -> None:
    encoder = make(replace(SMALL, feed_forward_proj="gated-gelu", dropout_rate=0.0)).train()
    theirs = as_transformers(encoder).train()
    tokens = tokens_of(encoder.config)
    encoder(tokens, MASK).square().mean().backward()
    theirs(input_ids=tokens, attention_mask=MASK).last_hidden_state.square().mean().backward()
    expected = dict(theirs.named_parameters())
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        torch.testing.assert_close(parameter.grad, expected[key].grad, rtol=1e-3, atol=1e-6)


def test_dropout_belongs_to_training() -> None:
    encoder = make(SMALL)
    tokens = tokens_of(SMALL)
    assert torch.equal(encoder(tokens, MASK), encoder(tokens, MASK))
    encoder.train()
    assert not torch.equal(encoder(tokens, MASK), encoder(tokens, MASK))


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (12, 20), (8, 64), (4, 3)])
def test_distances_have_the_buckets_of_transformers(num_buckets: int, max_distance: int) -> None:
    distances = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(
        distances, bidirectional=True, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(distance_buckets(distances, num_buckets, max_distance), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard", [None, "20KB"])
def test_reads_what_transformers_writes_with_every_weight_in_the_dtype_asked_for(
    tmp_path: Path, dtype: torch.dtype, shard: str | None
) -> None:
    """transformers itself keeps some weights of a float16 T5 in float32."""
    encoder = make(CONFIGS["gated-gelu"])
    as_transformers(encoder).save_pretrained(tmp_path, **({"max_shard_size": shard} if shard else {}))
    assert (tmp_path / "model.safetensors.index.json").is_file() == bool(shard)
    loaded = load_encoder(tmp_path, dtype, safetensors_only=True)
    assert loaded.config == encoder.config
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.to(dtype)), key


@pytest.mark.parametrize("name", ["relu", "gated-gelu"])
def test_transformers_reads_what_is_written(tmp_path: Path, name: str) -> None:
    encoder = make(CONFIGS[name]).half()
    save_encoder(encoder, tmp_path)
    loader: Any = T5EncoderModel
    loaded, info = loader.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    encoder.float()
    tokens = tokens_of(encoder.config)
    with torch.no_grad():
        expected = loaded.eval()(input_ids=tokens, attention_mask=MASK).last_hidden_state
        torch.testing.assert_close(encoder(tokens, MASK), expected, rtol=1e-5, atol=1e-5)


def test_reads_the_encoder_of_a_whole_model(tmp_path: Path) -> None:
    """As google/t5-v1_1 is published: with the decoder, and an output layer of its own."""
    torch.manual_seed(0)
    config = TransformersConfig(
        vocab_size=64, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    whole = T5ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(state | {"lm_head.weight": torch.zeros(64, 32)}, tmp_path / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(tmp_path, torch.float32)
    tokens = tokens_of(encoder.config)
    with torch.no_grad():
        expected = whole.encoder(input_ids=tokens, attention_mask=MASK).last_hidden_state
        torch.testing.assert_close(encoder(tokens, MASK), expected, rtol=1e-5, atol=1e-5)


def test_the_embedding_may_have_its_other_name_or_both(tmp_path: Path) -> None:
    encoder = make(SMALL)
    save_encoder(encoder, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for names in (("encoder.embed_tokens.weight",), ("encoder.embed_tokens.weight", "shared.weight")):
        renamed = {key: tensor for key, tensor in state.items() if key != "shared.weight"}
        renamed |= {name: state["shared.weight"].clone() for name in names}
        save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
        assert torch.equal(load_encoder(tmp_path, torch.float32).shared.weight, encoder.shared.weight)


def test_pickled_shards_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    encoder = make(SMALL)
    save_encoder(encoder, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weight_map = {key: f"pytorch_model-{index % 2}.bin" for index, key in enumerate(encoder.state_dict())}
    for name in set(weight_map.values()):
        torch.save({key: t for key, t in encoder.state_dict().items() if weight_map[key] == name}, tmp_path / name)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(load_encoder(tmp_path, torch.float32).shared.weight, encoder.shared.weight)
    with pytest.raises(ValueError, match="holds no weights"):
        load_encoder(tmp_path, torch.float32, safetensors_only=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "umt5"}, "model_type is 'umt5'; supported are t5 and mt5"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj is 'gated-silu'; supported are relu and gated-gelu"),
        ({"dense_act_fn": "silu"}, "dense_act_fn is 'silu'; only 'gelu_new' is supported here"),
        ({"is_gated_act": False}, "is_gated_act is False; only True is supported here"),
        ({"is_decoder": True}, "is_decoder is True; only False is supported here"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*; only None is supported here"),
        ({"num_layers": 0}, "num_layers is 0: a positive whole number is needed"),
        ({"d_model": "32"}, "d_model is '32'"),
        ({"dropout_rate": None}, "dropout_rate is None: a number of at least 0 is needed"),
        ({"relative_attention_num_buckets": 2}, "relative_attention_num_buckets is 2: at least 4"),
    ],
)
def test_refuses_settings_that_are_not_implemented(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_encoder(make(CONFIGS["gated-gelu"]), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(ValueError, match=rf"cannot use \S+config\.json: {message}"):
        read_encoder_config(tmp_path)
