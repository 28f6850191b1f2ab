"""Routing simulated on LLMBar's pairs with a judge's published verdicts, small."""

import json

import pytest

from pipelines.routing.pairs import jsonl
from pipelines.routing.simulate import simulate
from tests.benchmarks.routing_llmbar import judged_pairs

pytestmark = pytest.mark.data


def test_llmbar_with_published_verdicts(tmp_path):
    pairs = judged_pairs("ChatGPT-0301/Vanilla")
    assert len(pairs) == 419 and sum(pair.ai == pair.human for pair in pairs) == 205  # counted in the published file
    (tmp_path / "pairs.jsonl").write_text(jsonl(pair.model_dump() for pair in pairs))
    simulate(tmp_path / "pairs.jsonl", tmp_path / "sim", seeds=4, budgets=(0.25,))
    results = json.loads((tmp_path / "sim" / "results.json").read_text())
    assert sum(results["sizes"]) == 419 and results["ai_right"] == pytest.approx(205 / 419)
    assert results["all"] > results["none"] and results["prediction"]["linear"]["spearman"] > 0.5
    cell = results["budgets"][0]
    assert cell["labels"] > 20 and cell["random"]["ai_wrong"] == pytest.approx(214 / 419, abs=0.05)
    assert cell["linear"]["difference"] > 0, "of four seeds' means; docs/log.md has thirty with their interval"
