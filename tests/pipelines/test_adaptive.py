"""Adaptive shares change at window boundaries only, lean to the larger loss, and are bit-equal after a resume."""

import json

import numpy as np

from pipelines.multitask.adaptive import AdaptiveOrder
from pipelines.multitask.order import WINDOW, PlannedOrder

SIZES, BATCH = (300, 200, 100), 4
ROWS = WINDOW * BATCH
LENGTHS = np.tile(np.arange(10, 40), 20)


def adaptive(block: int = 1) -> AdaptiveOrder:
    return AdaptiveOrder(SIZES, [1, 1, 1], ROWS, 0.5, seed=3, block=block)


def trained(steps: int, order: AdaptiveOrder, resume: tuple[int, str] | None = None, save: int = -1):
    """Read batches as the trainer does, one ahead, with losses that only the step decides; return rows and a
    checkpoint."""
    done = 0
    if resume:
        done, state = resume
        order.restore(json.loads(state))
    rows = iter(PlannedOrder(order, LENGTHS, BATCH, steps * BATCH, seed=3))
    batches = ([next(rows) for _ in range(BATCH)] for _ in range(steps))
    for _ in range(done):
        next(batches)
    read, checkpoint, ahead = [], None, next(batches, None)
    for step in range(done, steps):
        now, ahead = ahead, next(batches, None)
        read.append(now)
        for task, loss in enumerate((1.0, 2.0, 3.0 + step % 5)):
            order.observe(task, loss, 10.0)
        if step + 1 == save:
            checkpoint = (step + 1, json.dumps(order.state()))
    return read, checkpoint


def test_shares_lean_to_the_larger_loss_and_change_between_windows():
    order = adaptive()
    trained(10 * WINDOW, order)
    stages = order.state()["stages"]
    assert len(stages) == 10 and all(sum(stage) == ROWS for stage in stages)
    assert stages[0] == (22, 21, 21) and stages[-1][0] < stages[-1][1] < stages[-1][2]


def test_a_resumed_run_reads_the_same_rows():
    whole, _ = trained(6 * WINDOW, adaptive())
    for step in (1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW - 1, 50):
        _, checkpoint = trained(6 * WINDOW, adaptive(), save=step)
        rest, _ = trained(6 * WINDOW, adaptive(), resume=checkpoint)
        assert rest == whole[step:], step


def test_a_task_without_share_is_never_read_and_blocks_hold():
    order = AdaptiveOrder(SIZES, [1, 0, 1], ROWS, 0.5, seed=3, block=BATCH)
    trained(4 * WINDOW, order)
    for stage in order.state()["stages"]:
        assert stage[1] == 0 and all(draws % BATCH == 0 for draws in stage)
