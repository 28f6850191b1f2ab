import pytest
import torch

from pipelines.multitask.task_loss import TaskLoss


def test_sums_by_task_on_worked_numbers():
    meter = TaskLoss(["a", "b", "unseen"])
    mask = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 1, 1]])
    log_probs = -torch.tensor([[9.0, 1.0, 2.0], [9.0, 9.0, 4.0], [1.0, 1.0, 1.0]])
    hits = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 1]])
    meter.add(torch.tensor([0, 1, 0]), log_probs, mask, hits)
    report = meter.report(lambda sums: sums)
    assert report == {
        "loss/a": pytest.approx(6 / 5),
        "accuracy/a": pytest.approx(2 / 5),
        "tokens/a": 5,
        "loss/b": 4,
        "accuracy/b": 1,
        "tokens/b": 1,
    }
    assert meter.report(lambda sums: sums) == {}


def test_processes_add_sums_not_averages():
    meter = TaskLoss(["a"])
    meter.add(torch.tensor([0]), torch.tensor([[-1.0, -3.0]]), torch.ones(1, 2), torch.zeros(1, 2))
    other = torch.tensor([[10.0, 1.0, 1.0]], dtype=torch.float64)
    assert meter.report(lambda sums: sums + other)["loss/a"] == pytest.approx(14 / 3)
