"""The planned order reads every row once an epoch, in batches of like length, whatever the number of processes."""

import numpy as np

from data_recipes.order import Order
from pipelines.multitask.order import PlannedOrder

LENGTHS = np.array([(index * 37) % 100 + 10 for index in range(70)])


def planned(num_rows: int, seed: int = 0, batch: int = 8, block: int = 1, draws: tuple = ((40, 30),)) -> list[int]:
    return list(PlannedOrder(Order((40, 30), draws, seed, block), LENGTHS, batch, num_rows, seed))


def test_an_epoch_reads_every_row_once():
    assert sorted(planned(70)) == list(range(70))
    assert sorted(planned(140)) == sorted([*range(70), *range(70)])


def test_the_seed_alone_decides():
    assert planned(140) == planned(140) != planned(140, seed=1)


def test_batches_hold_rows_of_like_length():
    order = planned(70)
    spreads = [np.ptp(LENGTHS[order[i : i + 8]]) for i in range(0, 64, 8)]
    assert np.mean(spreads) < 25  # of a range of 100


def test_batches_of_one_task_stay_of_one_task():
    order = planned(64, batch=8, block=8, draws=((40, 24),))
    tasks = [{index >= 40 for index in order[i : i + 8]} for i in range(0, 64, 8)]
    assert all(len(of_batch) == 1 for of_batch in tasks)
    assert sum(next(iter(of_batch)) for of_batch in tasks) == 3


def test_a_window_is_reached_without_the_ones_before():
    order = PlannedOrder(Order((40, 30), ((40, 30),), 5), LENGTHS, 2, 700, 5)
    assert list(order)[320:352] == order.window(320).tolist()
