"""Random numbers from counters: uniform, independent, and the same wherever they are drawn."""

import torch
from scipy.stats import kstest

from patchbench.data.draws import eval_draws, hashed, train_draws, uniform

PLACES = torch.arange(2000)


def test_numbers_are_uniform_and_independent():
    numbers = uniform(train_draws(0, 0, PLACES), 8)
    assert kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.01
    correlation = torch.corrcoef(numbers.T) - torch.eye(8)
    assert correlation.abs().max() < 0.08
    neighbours = torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]
    assert neighbours.abs() < 0.08
    other = uniform(train_draws(0, 0, PLACES), 8, purpose=1)
    assert torch.corrcoef(torch.stack([numbers.flatten(), other.flatten()]))[0, 1].abs() < 0.03


def test_a_number_depends_on_its_draw_alone():
    draws = train_draws(3, 5, PLACES)
    assert torch.equal(uniform(draws, 4)[100:120], uniform(draws[100:120], 4))
    assert torch.equal(uniform(draws, 4), uniform(draws, 9)[:, :4])


def test_seeds_epochs_places_and_splits_share_no_draw():
    draws = [train_draws(seed, epoch, PLACES) for seed in range(3) for epoch in range(3)]
    fixed = [eval_draws(split, PLACES) for split in range(2)]
    together = torch.cat(draws + fixed)
    assert len(together.unique()) == len(together)
    assert (torch.cat(draws) >= 0).all()
    assert (torch.cat(fixed) < 0).all()


def test_the_hash_moves_half_of_the_bits():
    x = torch.randint(2**62, (500,), generator=torch.Generator().manual_seed(0))
    for bit in (0, 17, 40, 62):
        changed = hashed(x) ^ hashed(x ^ (1 << bit))
        ones = sum(((changed >> k) & 1).float().mean() for k in range(64))
        assert abs(ones - 32) < 1
