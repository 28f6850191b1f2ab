"""The tasks' losses: sums by task, reduced over processes."""

import pytest
import torch

from pipelines.multitask.task_loss import TaskLoss, task_sums


def test_sums_by_task_on_worked_numbers():
    meter = TaskLoss(["a", "b", "unseen"])
    tasks = torch.tensor([[-1, 0, 0], [-1, -1, 1], [0, 0, 0]])
    nll = torch.tensor([[9.0, 1.0, 2.0], [9.0, 9.0, 4.0], [1.0, 1.0, 1.0]])
    hits = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 1]])
    meter.add(task_sums(3, tasks, nll, hits))
    report = meter.report(lambda sums: sums)
    assert report == {
        "loss/a": pytest.approx(6 / 5),
        "accuracy/a": pytest.approx(2 / 5),
        "tokens/a": 5,
        "seen_tokens/a": 5,
        "share/a": pytest.approx(5 / 6),
        "loss/b": 4,
        "accuracy/b": 1,
        "tokens/b": 1,
        "seen_tokens/b": 1,
        "share/b": pytest.approx(1 / 6),
    }
    assert "loss/a" not in meter.report(lambda sums: sums), "it starts again from zero"


def test_a_packed_line_counts_each_token_under_its_own_task():
    sums = task_sums(2, torch.tensor([[0, 0, -1, 1]]), torch.tensor([[1.0, 2.0, 8.0, 3.0]]), torch.zeros(1, 4))
    assert sums.tolist() == [[3, 2, 0], [3, 1, 0]]


def test_processes_add_sums_not_averages():
    meter = TaskLoss(["a"])
    meter.add(task_sums(1, torch.zeros(1, 2, dtype=torch.long), torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)))
    other = torch.tensor([[10.0, 1.0, 1.0]], dtype=torch.float64)
    assert meter.report(lambda sums: sums + other)["loss/a"] == pytest.approx(14 / 3)


def test_statistics_go_on_from_a_checkpoint():
    meter, again = TaskLoss(["a"]), TaskLoss(["a"])
    meter.add(torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64))
    meter.report(lambda sums: sums)
    meter.add(torch.tensor([[5.0, 2.0, 0.0]], dtype=torch.float64))
    again.restore(meter.state(lambda sums: sums), first=True)
    assert again.report(lambda sums: sums) == meter.report(lambda sums: sums)
