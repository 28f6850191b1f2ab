"""The order is a pure function: reached anywhere at once, the same for everybody, exact in its shares."""

import numpy as np
import pytest

from data_recipes.order import Order, permute

MANY = Order((400, 300, 200, 100), ((400, 300, 200, 100),), seed=7)
UNEVEN = Order((400, 300, 200, 100), ((100, 300, 450, 37),), seed=7)
STAGED = Order((400, 300, 200, 100), ((90, 10, 0, 0), (50, 50, 100, 0), (0, 10, 90, 150)), seed=7)
BLOCKS = Order((400, 300, 200, 100), ((80, 160, 240, 16),), seed=7, block=8)
ORDERS = [MANY, UNEVEN, STAGED, BLOCKS]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 65_537])
def test_a_permutation_meets_everything_once(size):
    for key in range(3):
        image = permute(np.arange(size), size, key, 1)
        assert np.array_equal(np.sort(image), np.arange(size))
    assert size < 5 or not np.array_equal(permute(np.arange(size), size, 0), permute(np.arange(size), size, 1))


def test_a_permutation_of_a_large_range_is_reached_one_by_one():
    size = 3_000_000_019  # beyond 32 bits
    some = np.array([0, 1, 12_345, size - 1])
    image = permute(some, size, 3)
    assert len(set(image.tolist())) == 4 and image.max() < size
    assert permute(some[2:3], size, 3)[0] == image[2]


def test_small_permutations_are_near_uniform():
    counts = np.zeros((5, 5))
    for key in range(4000):
        counts[np.arange(5), permute(np.arange(5), 5, key)] += 1
    assert abs(counts - 800).max() < 5 * np.sqrt(800 * 0.8)


def test_neighbours_are_not_sent_to_neighbours():
    image = permute(np.arange(100_003), 100_003, 9).astype(float)
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_003), image)[0, 1]) < 0.02
    assert abs(np.histogram(image[:5000], 10)[0] - 500).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize("order", ORDERS)
def test_reading_from_anywhere_equals_reading_from_the_start(order):
    whole = order.indices(0, 3 * len(order))
    for start in (0, 1, 17, len(order) - 1, len(order), len(order) + 5, 2 * len(order) + 3):
        assert np.array_equal(order.indices(start, 3 * len(order)), whole[start:])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_that_read_their_own_positions_read_the_same_stream(order, ranks):
    whole = order.indices(0, 480)
    shards = [np.concatenate([order.indices(p, p + 1) for p in range(rank, 480, ranks)]) for rank in range(ranks)]
    together = np.empty_like(whole)
    for rank, shard in enumerate(shards):
        together[rank::ranks] = shard
    assert np.array_equal(together, whole)


@pytest.mark.parametrize("order", ORDERS)
def test_every_epoch_gives_each_task_its_draws_exactly(order):
    for epoch in range(3):
        tasks, rows = order.at(epoch, np.arange(len(order)))
        assert np.bincount(tasks, minlength=4).tolist() == [sum(column) for column in zip(*order.stages, strict=True)]
        assert (rows < np.array(order.sizes)[tasks]).all() and (rows >= 0).all()


@pytest.mark.parametrize("order", ORDERS)
def test_rows_take_turns_over_the_epochs(order):
    """No row is read twice before every row of its task was read once, whatever the shares."""
    counts = np.bincount(order.indices(0, 7 * len(order)), minlength=sum(order.sizes))
    first = 0
    for task, size in enumerate(order.sizes):
        of_task = counts[first : first + size]
        assert of_task.max() - of_task.min() <= 1, task
        first += size


def test_union_reads_every_row_once_an_epoch_and_in_another_order_each_time():
    one, two = MANY.indices(0, 1000), MANY.indices(1000, 2000)
    assert np.array_equal(np.sort(one), np.arange(1000)) and np.array_equal(np.sort(two), np.arange(1000))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, Order(MANY.sizes, MANY.stages, seed=8).indices(0, 1000))


def test_stages_follow_one_another():
    tasks, _ = STAGED.at(0, np.arange(len(STAGED)))
    assert set(tasks[:100].tolist()) == {0, 1} and set(tasks[-250:].tolist()) == {1, 2, 3}


def test_blocks_hold_one_task():
    tasks, _ = BLOCKS.at(0, np.arange(len(BLOCKS)))
    assert (tasks.reshape(-1, 8) == tasks.reshape(-1, 8)[:, :1]).all()


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(ValueError, match="multiples of the block"):
        Order((10,), ((9,),), 0, block=4)
    with pytest.raises(ValueError, match="without rows"):
        Order((10, 0), ((5, 5),), 0)
    with pytest.raises(IndexError):
        MANY.at(0, [1000])
