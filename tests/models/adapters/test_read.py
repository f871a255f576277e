"""Adapter folders are not trusted: whatever is in one, reading ends with the adapter or with a reason."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.adapters.read import SETTINGS, WEIGHTS, read_adapter
from models.adapters.targets import find_targets
from models.config import Conditioning, Temporal, TransformerConfig
from tests.models.adapters.adapter_folders import attention_targets, make_adapter_folder, random_lora, write_adapter
from tests.models.transformers import make_config

TEXT = make_config(Conditioning.TEXT)
CLASS = make_config()
MAX_BYTES = 1 << 20
QUERY = "transformer_blocks.0.attn1.to_q"
WIDTH = TEXT.width


def lora_of(module: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}


def refuse(folder: Path, message: str, config: TransformerConfig = TEXT, max_bytes: int = MAX_BYTES) -> None:
    with pytest.raises(ValueError, match=message):
        read_adapter(folder, config, max_bytes)


def test_fused_projections_get_an_update_for_each_part(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT, rank=3)
    adapter = read_adapter(folder, TEXT, MAX_BYTES)
    assert [part.first_output for part in adapter.updates["blocks.0.attention.qkv"]] == [0, WIDTH, 2 * WIDTH]
    assert [part.first_output for part in adapter.updates["blocks.0.cross.kv"]] == [0, WIDTH]
    lora = random_lora(attention_targets(TEXT), rank=3)
    key = lora["base_model.model.transformer_blocks.0.attn1.to_k.lora_B.weight"]
    torch.testing.assert_close(adapter.updates["blocks.0.attention.qkv"][1].up, key * 4 / 3)  # alpha / rank
    assert adapter.rank == 3


def test_class_models_name_qkv_as_one_layer(tmp_path: Path) -> None:
    targets = find_targets(CLASS)
    assert targets["blocks.0.attn.qkv"].num_outputs == 3 * CLASS.width
    assert targets["blocks.1.attn.vanilla_attention.qkv"].name == "blocks.1.attention.local.qkv"
    modulation = targets["blocks.2.adaLN_modulation.1"]
    assert (modulation.first_output, modulation.num_outputs) == (12 * CLASS.width, 6 * CLASS.width)
    assert targets["final_layer.adaLN_modulation.1"].num_outputs == 2 * CLASS.width
    assert read_adapter(make_adapter_folder(tmp_path / "one", CLASS), CLASS, MAX_BYTES).rank == 2


def test_the_fingerprint_is_that_of_the_files(tmp_path: Path) -> None:
    first = read_adapter(make_adapter_folder(tmp_path / "a", TEXT), TEXT, MAX_BYTES)
    same = read_adapter(make_adapter_folder(tmp_path / "b", TEXT), TEXT, MAX_BYTES)
    others = [
        make_adapter_folder(tmp_path / "c", TEXT, seed=1),
        make_adapter_folder(tmp_path / "d", TEXT, lora_alpha=5),
    ]
    assert same.fingerprint == first.fingerprint
    assert first.fingerprint not in [read_adapter(folder, TEXT, MAX_BYTES).fingerprint for folder in others]


def test_an_adapter_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    wide = make_adapter_folder(tmp_path / "wide", make_config(Conditioning.TEXT, width=32))
    refuse(wide, r"mis-shaped: .*to_q has lora_A \(2, 32\).*\(2, 16\) and \(16, 2\) are needed")
    refuse(make_adapter_folder(tmp_path / "class", CLASS), r"unknown: blocks\.0\.attn\.proj")
    deep = make_adapter_folder(tmp_path / "deep", make_config(Conditioning.TEXT, depth=8))
    refuse(deep, r"unknown: transformer_blocks\.2\.attn1")
    local = make_config(Conditioning.TEXT, temporal=Temporal.LOCAL, matrix=None, fuse=None)
    assert read_adapter(make_adapter_folder(tmp_path / "local", local, only=[QUERY]), TEXT, MAX_BYTES).rank == 2


@pytest.mark.parametrize("part", ["linear_q", "linear_v", "proj_v"])
def test_matrix_attention_is_refused_with_the_reason(part: str, tmp_path: Path) -> None:
    module = f"temporal_transformer_blocks.0.attn1.matrix_attention.{part}"
    folder = write_adapter(tmp_path / "one", lora_of(module, torch.ones(2, WIDTH), torch.ones(WIDTH, 2)))
    refuse(folder, rf"unknown: .*{part} \(matrix attention is folded")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lora_of(QUERY, torch.ones(2, WIDTH) * float("nan"), torch.ones(WIDTH, 2)), "NaN or infinity in .*lora_A"),
        (lora_of(QUERY, torch.ones(2, WIDTH), torch.full((WIDTH, 2), float("inf"))), "NaN or infinity in .*lora_B"),
        (lora_of(QUERY, torch.ones(2, WIDTH), torch.full((WIDTH, 2), 3e38)), "NaN or infinity .*times its alpha"),
        (lora_of(QUERY, torch.ones(2, WIDTH), torch.ones(WIDTH, 3)), "mis-shaped"),
        (lora_of(QUERY, torch.ones(0, WIDTH), torch.ones(WIDTH, 0)), "mis-shaped|cannot read"),
        (lora_of(QUERY, torch.ones(2), torch.ones(WIDTH, 2)), "mis-shaped"),
        (lora_of(QUERY, torch.tensor(1.0), torch.tensor(1.0)), "mis-shaped|cannot read"),
        (lora_of(QUERY, torch.ones(2, WIDTH).int(), torch.ones(WIDTH, 2).int()), "floating-point numbers are needed"),
        (lora_of("../../etc/passwd", torch.ones(2, WIDTH), torch.ones(WIDTH, 2)), r"unknown: \.\./\.\./etc/passwd"),
        ({f"{QUERY}.lora_A.weight": torch.ones(2, WIDTH)}, "only one of lora_A and lora_B"),
        ({f"{QUERY}.weight": torch.ones(WIDTH, WIDTH)}, "no LoRA keys"),
        ({f"{QUERY}.lora_magnitude_vector": torch.ones(WIDTH)}, "no LoRA keys"),
    ],
)
def test_broken_tensors_are_refused_by_name(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    refuse(write_adapter(tmp_path / "one", tensors), message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_alpha": None}, "no alpha is known"),
        ({"lora_alpha": "much"}, "cannot read .*adapter"),
        ({"lora_alpha": float("nan")}, "NaN or infinity"),
        ({"alpha_pattern": {"(": 1}}, "cannot read"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "names without"),
        ({"alpha_pattern": ["to_q"]}, "cannot read"),
    ],
)
def test_broken_settings_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    refuse(make_adapter_folder(tmp_path / "one", TEXT, **settings), message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * ((1 << 20) + 1)])
def test_broken_json_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    (folder / SETTINGS).write_bytes(content)
    refuse(folder, "adapter_config.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 8,
        (1 << 60).to_bytes(8, "little") + b"{}",
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_broken_weights_are_refused(content: bytes, tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    (folder / WEIGHTS).write_bytes(content)
    refuse(folder, "adapter_model.safetensors")


def test_a_huge_shape_without_its_bytes_is_refused(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    header = {"x.lora_A.weight": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 64]}}
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)
    refuse(folder, "cannot read")


def test_weights_above_the_limit_are_refused_unread(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    os.truncate(folder / WEIGHTS, 1 << 40)  # a sparse file: reading all of it would take the memory of the machine
    refuse(folder, "at most 1,048,576 are allowed")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    refuse(folder, "cannot read")
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    refuse(folder, r"has no adapter_model\.safetensors; adapter_model\.bin is not read, since a pickle can run code")
    assert not (tmp_path / "exploded").exists()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = make_adapter_folder(tmp_path / "outside", TEXT)
    for name in (WEIGHTS, SETTINGS):
        folder = make_adapter_folder(tmp_path / f"with {name}", TEXT)
        (folder / name).unlink()
        (folder / name).symlink_to(outside / name)
        refuse(folder, "a link that leads out of its folder")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "linked").symlink_to(outside)
    refuse(tmp_path / "adapters" / "linked", "a link that leads out of its folder")


def test_files_that_are_not_files_are_refused(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "pipe", TEXT)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)  # opening it would block
    refuse(folder, "has no adapter_model.safetensors")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    refuse(folder, "has no adapter_model.safetensors")
    refuse(tmp_path / "nothing", "has no adapter_model.safetensors")


def test_metadata_of_the_weights_is_not_needed(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", TEXT)
    save_file(random_lora(attention_targets(TEXT)), folder / WEIGHTS, metadata={"format": "pt", "lora_alpha": "100"})
    adapter = read_adapter(folder, TEXT, MAX_BYTES)
    plain = read_adapter(make_adapter_folder(tmp_path / "two", TEXT), TEXT, MAX_BYTES)
    part, expected = (read.updates["blocks.0.attention.out"][0] for read in (adapter, plain))
    assert torch.equal(part.up, expected.up)
