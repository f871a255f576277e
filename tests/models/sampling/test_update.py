import torch

from models.sampling.samplers import SAMPLERS, build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.table import EARLIER, LATENT, MEMORY, PREDICTION, SamplerTable
from models.sampling.update import gather, start_state, update

SCHEDULE = NoiseSchedule()
FRAME = (3, 4, 5, 7)  # T, C, H, W of no round size, so that vectorized kernels have leftovers


def random(seed: int, *leading: int) -> torch.Tensor:
    return torch.randn((*leading, *FRAME), generator=torch.Generator().manual_seed(seed))


def test_a_row_of_a_mixed_batch_equals_its_own_pass_bit_for_bit() -> None:
    num_steps = [1, 2, 5, 20, 50, 250, 1000, 9, 4]
    tables = [build_table(SAMPLERS[i % len(SAMPLERS)], n, SCHEDULE) for i, n in enumerate(num_steps)]
    steps = [0, 1, 4, 7, 25, 249, 500, 0, 2]
    rows = len(tables)
    state, noise, variance, fresh = random(0, rows, 4), random(1, rows), random(2, rows), random(3, rows)
    together = update(state, noise, variance, fresh, gather(tables, steps))
    for row in range(rows):
        only = slice(row, row + 1)
        coefficients = gather(tables[only], steps[only])
        alone = update(state[only], noise[only], variance[only], fresh[only], coefficients)
        assert torch.equal(together[only], alone), (tables[row].sampler, steps[row])


def test_rows_join_and_leave_without_a_trace() -> None:
    def predict(state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state[:, LATENT])

    def advance(state: torch.Tensor, tables: list[SamplerTable], steps: list[int]) -> torch.Tensor:
        noise = predict(state)
        return update(state, noise, None, torch.zeros_like(noise), gather(tables, steps))

    long, short = build_table("unipc", 6, SCHEDULE), build_table("dpmpp_2m", 2, SCHEDULE)
    alone = start_state(long, random(0, 1))
    for step in range(6):
        alone = advance(alone, [long], [step])
    state = start_state(long, random(0, 1))
    for step in range(2):
        state = advance(state, [long], [step])
    state = torch.cat([start_state(short, random(1, 1)), state])
    for step in range(2):
        state = advance(state, [short, long], [step, step + 2])
    state = state[1:]
    for step in range(4, 6):
        state = advance(state, [long], [step])
    assert torch.equal(state, alone)


def test_the_state_remembers_predictions() -> None:
    table = build_table("unipc", 3, SCHEDULE)
    start, noise = random(0, 1), random(1, 1)
    state = start_state(table, start)
    assert torch.equal(state[:, LATENT], start)
    assert not state[:, PREDICTION:].any()
    state = update(state, noise, None, torch.zeros_like(noise), gather([table], [0]))
    alpha = SCHEDULE.alphas_cumprod[999].sqrt().item()
    torch.testing.assert_close(
        state[:, PREDICTION], (start - (1 - alpha**2) ** 0.5 * noise) / alpha, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(state[:, MEMORY], start)
    after = update(state, noise, None, torch.zeros_like(noise), gather([table], [1]))
    assert torch.equal(after[:, EARLIER], state[:, PREDICTION])


def test_variance_channels_choose_between_the_two_bounds() -> None:
    table = build_table("ddpm_spaced", 10, SCHEDULE)
    noise, fresh = random(0, 1), random(1, 1)
    state = start_state(table, random(2, 1))
    coefficients = gather([table], [4])
    still = update(state, noise, None, torch.zeros_like(fresh), coefficients)[:, LATENT]

    def added(variance: torch.Tensor | None) -> torch.Tensor:
        return update(state, noise, variance, fresh, coefficients)[:, LATENT] - still

    smallest, largest = table.log_variances[4].mul(0.5).exp()
    torch.testing.assert_close(added(torch.full_like(noise, -1)), smallest * fresh)
    torch.testing.assert_close(added(torch.full_like(noise, 1)), largest * fresh)
    torch.testing.assert_close(added(torch.zeros_like(noise)), (smallest * largest).sqrt() * fresh)
    torch.testing.assert_close(added(None), largest * fresh)


def test_a_fixed_variance_ignores_the_variance_channels() -> None:
    table = build_table("ddpm", 10, SCHEDULE)
    noise, fresh, state = random(0, 1), random(1, 1), start_state(table, random(2, 1))
    coefficients = gather([table], [4])
    assert torch.equal(
        update(state, noise, 100 * random(3, 1), fresh, coefficients), update(state, noise, None, fresh, coefficients)
    )


def test_euler_starts_at_its_first_noise_level() -> None:
    table = build_table("euler", 10, SCHEDULE)
    noise = random(0, 1)
    torch.testing.assert_close(
        start_state(table, noise)[:, LATENT], (1 - SCHEDULE.alphas_cumprod[999]).sqrt().float() * noise
    )
