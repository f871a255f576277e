from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, read_folder, read_weights

ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04 cut off", b"\x80\x02"])
def test_refuses_files_of_another_kind_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.(pt|safetensors)(:| is refused:) \S[^\n]*$"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"x\.(pt|safetensors) is empty: copy it again"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_file_that_is_cut_off_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    tensors = {"w": torch.zeros(1000)}
    torch.save(tensors, tmp_path / name) if name.endswith("pt") else save_file(tensors, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*x\.(pt|safetensors): \S[^\n]*$"):
        read_weights(tmp_path / name)


def test_refuses_what_is_no_dict_of_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "none.pt")
    torch.save([ONE], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="a dict of tensors is expected"):
        read_weights(tmp_path / "list.pt")
    torch.save({"weights": {"w": ONE}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="more than tensors: weights"):
        read_weights(tmp_path / "other.pt")


@pytest.mark.parametrize("names", [DIFFUSERS_FILES, TRANSFORMERS_FILES])
def test_reads_the_files_of_model_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    safe, pickled = names
    with pytest.raises(ValueError, match=rf"holds no weights: none of {safe}, {pickled} is in it"):
        read_folder(tmp_path, names)
    torch.save({"w": ONE}, tmp_path / pickled)
    assert read_folder(tmp_path, names) == {"w": ONE}
    with pytest.raises(ValueError, match=rf"holds no weights: none of {safe} is in it"):
        read_folder(tmp_path, names, safetensors_only=True)
    save_file({"w": TWO}, tmp_path / safe)
    assert read_folder(tmp_path, names, safetensors_only=True) == read_folder(tmp_path, names) == {"w": TWO}


@pytest.mark.parametrize("names", [DIFFUSERS_FILES, TRANSFORMERS_FILES])
def test_reads_shards(tmp_path: Path, names: tuple[str, str]) -> None:
    index = '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}'
    (tmp_path / f"{names[0]}.index.json").write_text(index)
    save_file({"a": ONE}, tmp_path / "1.safetensors")
    with pytest.raises(ValueError, match=r"lacks 2\.safetensors"):
        read_folder(tmp_path, names)
    save_file({"b": TWO, "c": ONE}, tmp_path / "2.safetensors")
    assert read_folder(tmp_path, names) == {"a": ONE, "b": TWO, "c": ONE}


@pytest.mark.parametrize("content", ["{}", '{"weight_map": ["1.bin"]}', '{"weight_map": {"a": "../1.bin"}}'])
def test_an_index_names_files_beside_it(tmp_path: Path, content: str) -> None:
    torch.save({"a": ONE}, tmp_path / "1.bin")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json has no weight_map of file names beside it"):
        read_folder(folder, TRANSFORMERS_FILES)
