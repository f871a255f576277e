import pytest
import torch

from models.config import Conditioning
from models.sampling.noise import NoiseStream
from models.sampling.windows import Windows
from tests.models.transformers import make_local_config

CLASS = make_local_config(latent_size=6, num_frames=8)
TEXT = make_local_config(Conditioning.TEXT, latent_size=6, num_frames=8)


def test_a_seed_is_a_sequence_of_latents() -> None:
    first, again, other = (
        NoiseStream(CLASS, Windows.of(5, 8), 7),
        NoiseStream(CLASS, Windows.of(5, 8), 7),
        NoiseStream(CLASS, Windows.of(5, 8), 8),
    )
    drawn = [first.draw() for _ in range(3)]
    assert all(torch.equal(a, again.draw()) for a in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], other.draw())
    assert drawn[0].shape == (1, 5, 4, 6, 6)


def test_other_draws_do_not_disturb_a_stream() -> None:
    undisturbed = [NoiseStream(CLASS, Windows.of(8, 8), 1).draw(), NoiseStream(CLASS, Windows.of(8, 8), 2).draw()]
    streams = [NoiseStream(CLASS, Windows.of(8, 8), 1), NoiseStream(CLASS, Windows.of(8, 8), 2)]
    torch.manual_seed(0)
    torch.randn(5)
    assert all(torch.equal(a, stream.draw()) for a, stream in zip(undisturbed, streams, strict=True))


def test_the_class_family_draws_frame_by_frame() -> None:
    generator = torch.Generator().manual_seed(7)
    stream = NoiseStream(CLASS, Windows.of(5, 8), 7)
    for _ in range(2):
        assert torch.equal(stream.draw(), torch.randn((1, 5, 4, 6, 6), generator=generator))


def test_the_text_family_draws_channel_by_channel() -> None:
    generator = torch.Generator().manual_seed(7)
    stream = NoiseStream(TEXT, Windows.of(5, 8), 7)
    for _ in range(2):
        assert torch.equal(stream.draw(), torch.randn((1, 4, 5, 6, 6), generator=generator).permute(0, 2, 1, 3, 4))


def test_the_start_noise_of_a_long_video_repeats_its_first_window_in_shuffled_order() -> None:
    start = NoiseStream(CLASS, Windows.of(20, 8), 7).start()
    assert torch.equal(start[:, :8], NoiseStream(CLASS, Windows.of(8, 8), 7).start())
    frames = [[bool(torch.equal(frame, first)) for first in start[0, :8]].index(True) for frame in start[0]]
    for later in range(8, 20, 4):
        assert sorted(frames[later : later + 4]) == sorted(frames[later - 8 : later - 4])
    assert frames[8:] != [*range(8), *range(4)]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed {seed}"):
        NoiseStream(CLASS, Windows.of(1, 8), seed)
