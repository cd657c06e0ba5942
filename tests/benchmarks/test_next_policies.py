"""The benchmark of `next` on one truth: the same luck whoever asks, costs counted once, policies within the grid."""

from __future__ import annotations

import pytest

from .bench_next import FIRST, SHARES, TOKENIZER_FLOPS, Run, World, cheapest_first, course, first_of, grid_of, spent


def test_a_world_measures_the_same_whoever_asks_and_counts_tokenizers_once() -> None:
    world = World(3, 2e12)
    run = Run("K16-T16", "XS", 0, FIRST[1])
    assert world.gfid(run, FIRST[1]) == World(3, 2e12).gfid(run, FIRST[1])
    assert world.gfid(run, FIRST[1]) != world.gfid(run._replace(seed=1), FIRST[1])
    other = run._replace(size="S")
    of_generators = FIRST[1] * (world.each("K16-T16", "XS") + world.each("K16-T16", "S"))
    assert spent(world, [run, other]) == pytest.approx(TOKENIZER_FLOPS + of_generators)
    costs = [r.images * world.each(r.family, r.size) for r in cheapest_first(world, 0.0)]
    assert costs == sorted(costs)


def test_the_whole_grid_decides_as_well_as_it_can() -> None:
    world = World(3, 2e12)
    regrets, ended = course(world, "random")
    assert len(regrets) == len(SHARES) and ended <= 1.0
    assert world.regret(grid_of(world)) <= world.regret(first_of(world)) + 1e-9
