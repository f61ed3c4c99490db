"""Random numbers from counters: uniform, independent, and the same wherever they are drawn."""

import torch
from scipy.stats import kstest

from patchbench.data.draws import Images, Purpose, eval_draws, hashed, normal, train_draws, uniform

PLACES = torch.arange(2000)


def test_numbers_are_uniform_and_independent():
    numbers = uniform(train_draws(0, 0, PLACES), 8, Purpose.VIEW)
    assert kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.01
    correlation = torch.corrcoef(numbers.T) - torch.eye(8)
    assert correlation.abs().max() < 0.08
    neighbours = torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]
    assert neighbours.abs() < 0.08
    other = uniform(train_draws(0, 0, PLACES), 8, Purpose.LABEL)
    assert torch.corrcoef(torch.stack([numbers.flatten(), other.flatten()]))[0, 1].abs() < 0.03


def test_a_number_depends_on_its_draw_alone():
    draws = train_draws(3, 5, PLACES)
    assert torch.equal(uniform(draws, 4, Purpose.CROP)[100:120], uniform(draws[100:120], 4, Purpose.CROP))
    assert torch.equal(uniform(draws, 4, Purpose.CROP), uniform(draws, 9, Purpose.CROP)[:, :4])


def test_seeds_epochs_places_and_splits_share_no_draw():
    draws = [train_draws(seed, epoch, PLACES) for seed in range(3) for epoch in range(3)]
    fixed = [eval_draws(images, PLACES) for images in Images]
    together = torch.cat(draws + fixed)
    assert len(together.unique()) == len(together)
    assert (torch.cat(draws) >= 0).all()
    assert (torch.cat(fixed) < 0).all()


def test_no_two_uses_of_random_numbers_collide():
    for kind in (Images, Purpose):
        values = [member.value for member in kind.__members__.values()]
        assert len(set(values)) == len(values)
        assert min(values) >= 0
    draws = eval_draws(Images.TEST, PLACES)
    numbers = torch.stack([uniform(draws, 1, purpose)[:, 0] for purpose in Purpose])
    correlation = torch.corrcoef(numbers) - torch.eye(len(Purpose))
    assert correlation.abs().max() < 0.1


def test_numbers_are_those_that_every_finished_run_drew():
    draws, fixed = train_draws(3, 5, torch.arange(2)), eval_draws(Images.SHUFFLE, torch.arange(2))
    assert draws.tolist() == [5876828740848990604, 10708396104721128]
    assert fixed.tolist() == [-6989466828712553352, -808059035171249651]
    expected = torch.tensor([[0.5406643152236938, 0.5168688893318176], [0.9299692511558533, 0.5601288676261902]])
    assert torch.equal(uniform(draws, 2, Purpose.CROP), expected)
    expected = torch.tensor([[-0.4806249439716339, -0.07839322835206985], [2.135004758834839, -1.571864128112793]])
    torch.testing.assert_close(normal(fixed, 2, Purpose.PIXEL_NOISE), expected)


def test_the_hash_moves_half_of_the_bits():
    x = torch.randint(2**62, (500,), generator=torch.Generator().manual_seed(0))
    for bit in (0, 17, 40, 62):
        changed = hashed(x) ^ hashed(x ^ (1 << bit))
        ones = sum(((changed >> k) & 1).float().mean() for k in range(64))
        assert abs(ones - 32) < 1
