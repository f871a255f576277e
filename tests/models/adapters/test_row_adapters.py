from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.adapters.adapter import ScaledAdapter
from models.adapters.row_adapters import AdapterSet, RowAdapters
from models.config import Conditioning, Fuse, Layout, Temporal, TransformerConfig
from models.transformer import Transformer
from tests.models.adapters.adapter_folders import make_adapter, make_scaled
from tests.models.transformers import make_condition, make_config, make_latents, make_transformer

ROWS = 5
DESIGNS = {
    "class": make_config(),
    "text": make_config(Conditioning.TEXT),
    "unconditional": make_config(Conditioning.NONE, fuse=Fuse.CONTENT_GATED),
    "joint": make_config(layout=Layout.JOINT, temporal=Temporal.LOCAL, matrix=None, fuse=None),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pass:
    """One pass of ROWS different rows."""

    def __init__(self, config: TransformerConfig) -> None:
        torch.manual_seed(1)
        self.transformer: Transformer = make_transformer(config).eval().requires_grad_(False)
        self.latents = make_latents(config, ROWS)
        self.timesteps = torch.tensor([10.0, 400.0, 400.0, 700.0, 990.0])
        self.condition = make_condition(config, ROWS)

    @torch.no_grad()
    def run(self, sets: list[AdapterSet], rows: slice = slice(None)) -> Tensor:
        return self.transformer(
            self.latents[rows], self.timesteps[rows], self.condition.rows(rows), RowAdapters.of(sets)
        )


@pytest.fixture(params=DESIGNS, scope="module")
def one_pass(request: pytest.FixtureRequest) -> Pass:
    return Pass(DESIGNS[request.param])


def mixed(config: TransformerConfig) -> list[AdapterSet]:
    """None, one, another, both, and the first again with another scale."""
    return [
        (),
        make_scaled(config, (0, 1.0)),
        make_scaled(config, (1, -0.5)),
        make_scaled(config, (0, 1.0), (2, 0.3)),
        make_scaled(config, (0, 2.0)),
    ]


def test_a_row_without_an_adapter_is_bit_for_bit_as_in_a_pass_without_any(one_pass: Pass) -> None:
    without = one_pass.run([()] * ROWS)
    for row in range(ROWS):
        sets = mixed(one_pass.transformer.config)
        sets[0], sets[row] = sets[row], sets[0]
        with_others = one_pass.run(sets)
        assert torch.equal(with_others[row], without[row])
        assert not any(torch.equal(with_others[other], without[other]) for other in range(ROWS) if other != row)


def test_rows_of_a_mixed_pass_equal_passes_with_one_adapter_set_each(one_pass: Pass) -> None:
    sets = mixed(one_pass.transformer.config)
    together = one_pass.run(sets)
    for row, adapters in enumerate(sets):
        alone = one_pass.run([adapters] * ROWS)[row]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


def test_a_part_of_the_rows_keeps_their_adapters(one_pass: Pass) -> None:
    sets = mixed(one_pass.transformer.config)
    adapters = RowAdapters.of(sets)
    assert adapters is not None
    assert adapters.part(slice(0, 1)) is None
    whole = one_pass.run(sets)
    for rows in (slice(0, 2), slice(2, 5)):
        with torch.no_grad():
            part = one_pass.transformer(
                one_pass.latents[rows], one_pass.timesteps[rows], one_pass.condition.rows(rows), adapters.part(rows)
            )
        torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(one_pass: Pass) -> None:
    before = {name: tensor.clone() for name, tensor in one_pass.transformer.state_dict().items()}
    without = one_pass.run([()] * ROWS)
    one_pass.run(mixed(one_pass.transformer.config))
    assert torch.equal(one_pass.run([()] * ROWS), without)
    after = one_pass.transformer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_pass_that_fails_leaves_no_adapter_behind(one_pass: Pass) -> None:
    without = one_pass.run([()] * ROWS)
    wrong = replace(one_pass.transformer.config, width=32)  # its updates do not fit
    with pytest.raises(RuntimeError):
        one_pass.run([make_scaled(wrong, (0, 1.0))] * ROWS)
    assert torch.equal(one_pass.run([()] * ROWS), without)


def test_a_scale_of_0_changes_nothing() -> None:
    one_pass = Pass(DESIGNS["text"])
    without = one_pass.run([()] * ROWS)
    scaled = one_pass.run([make_scaled(one_pass.transformer.config, (0, 0.0))] * ROWS)
    torch.testing.assert_close(scaled, without, rtol=0, atol=0)


def test_a_pass_with_adapters_leaves_fused_operations_out() -> None:
    """They read weights without calling the layers, so that no adapter would reach them."""
    one_pass = Pass(DESIGNS["text"])
    sets = mixed(one_pass.transformer.config)
    expected = one_pass.run(sets)

    def refuse(*_: object) -> Tensor:
        raise AssertionError("fused operations were used")

    one_pass.transformer.fused_blocks = refuse
    assert torch.equal(one_pass.run(sets), expected)
    with pytest.raises(AssertionError, match="fused"):
        one_pass.run([()] * ROWS)


def test_half_precision_stays_half_precision() -> None:
    one_pass = Pass(DESIGNS["text"])
    exact = one_pass.run(mixed(one_pass.transformer.config))
    one_pass.transformer.bfloat16()
    one_pass.latents = one_pass.latents.bfloat16()
    one_pass.condition = one_pass.condition.to("cpu", torch.bfloat16)
    sets = [
        tuple(ScaledAdapter(one.adapter.to("cpu", torch.bfloat16), one.scale) for one in adapters)
        for adapters in mixed(one_pass.transformer.config)
    ]
    rounded = one_pass.run(sets)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.1 * exact.norm()


def test_an_adapter_knows_its_size() -> None:
    adapter = make_adapter(DESIGNS["class"], seed=3)
    assert adapter.rank == 4
    numbers = sum(part.down.numel() + part.up.numel() for parts in adapter.updates.values() for part in parts)
    assert adapter.num_bytes == 4 * numbers
    assert adapter.to("cpu", torch.bfloat16).num_bytes == 2 * numbers
