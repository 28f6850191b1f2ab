import pytest

from pipelines.multitask.order import planned_order

LENGTHS = [(37 * i) % 101 + 5 for i in range(70)]


def test_every_epoch_reads_every_row_once():
    order = planned_order(LENGTHS, batch_size=8, num_rows=140, seed=0)
    assert sorted(order) == sorted(list(range(70)) * 2)


def test_the_order_depends_on_the_seed_alone():
    assert planned_order(LENGTHS, 8, 140, 0) == planned_order(LENGTHS, 8, 140, 0) != planned_order(LENGTHS, 8, 140, 1)


def test_batches_hold_rows_of_like_length():
    order = planned_order(LENGTHS, 8, 70, 0)
    batches = [[LENGTHS[i] for i in order[s : s + 8]] for s in range(0, 64, 8)]
    padded = sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches))
    unsorted = [LENGTHS[s : s + 8] for s in range(0, 64, 8)]
    assert padded < 1.2 < sum(max(batch) * len(batch) for batch in unsorted) / sum(map(sum, unsorted))


@pytest.mark.parametrize("num_rows", [1, 7, 8, 70, 71, 300])
def test_any_length_of_run_is_planned(num_rows):
    order = planned_order(LENGTHS, 8, num_rows, 3)
    assert len(order) == num_rows and set(order) <= set(range(70))
