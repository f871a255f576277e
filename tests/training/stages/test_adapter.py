from pathlib import Path

import torch

from jobs.adapter_cards import read_adapter_card
from models.adapters.read import read_adapter
from models.checkpoint.directory import read_config
from models.checkpoint.load import load_checkpoint
from training.loop import LoopSettings
from training.stages.adapter import TrainedAdapter, encode_videos, train_adapter, write_folder

REPOSITORY = Path(__file__).parents[3]
CHECKPOINT = REPOSITORY / "checkpoints" / "demo-text"


def test_the_shipped_adapter_fits_the_demo_model() -> None:
    folder = REPOSITORY / "adapters" / "demo-sparkle"
    card = read_adapter_card(folder, None)
    assert (card.model, card.trigger_words) == ("demo-text", ["sparkle"])
    adapter = read_adapter(folder, read_config(CHECKPOINT).transformer, 1 << 20)
    assert adapter.rank == 8
    assert all(part.up.abs().max() > 0 for parts in adapter.updates.values() for part in parts), "all are trained"


def test_training_changes_the_adapter_alone_and_writes_a_folder(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(CHECKPOINT)
    before = {name: tensor.clone() for name, tensor in checkpoint.transformer.state_dict().items()}
    latents, texts = encode_videos(checkpoint, 4, seed=0)
    assert latents.shape == (4, 16, 4, 8, 8)
    assert ["sparkle" in text.lower() for text in texts] == [False, True, True, True]
    torch.manual_seed(0)
    trained = TrainedAdapter(checkpoint.config, rank=2)
    train_adapter(checkpoint, trained, latents, texts, LoopSettings(tmp_path / "work", 1, 1e-3), batch=1)
    write_folder(tmp_path / "made", trained, rank=2)
    assert read_adapter(tmp_path / "made", checkpoint.config, 1 << 20).rank == 2
    assert any(up.abs().max() > 0 for up in trained.ups)
    again = TrainedAdapter(checkpoint.config, rank=2)
    again.start_from(tmp_path / "made")
    assert all(torch.equal(again.to_peft()[name], tensor) for name, tensor in trained.to_peft().items())
    after = checkpoint.transformer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
