"""The three files of docs/extending.md, put into a copy of the project, work without any other edit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
import json
from pathlib import Path
from data_recipes.mixture import build_mixture
from data_recipes.recipe import load_recipe
from data_recipes.store import HELDOUT, read_mixture
from eval.harness import Contestant, Helpers, evaluate, open_benchmark
from eval.verifiers import verify

here = Path.cwd()
class Words:
    name, vocabulary = "words", 2
    def __call__(self, rows):
        return [([1, 1], 1) for row in rows]

recipe, _ = load_recipe("recipe.yaml", beside=here)
build_mixture(recipe, here / "mixture", seed=0, tokenise=Words())
(row,) = [row for row in read_mixture(here / "mixture", HELDOUT) if row.id.endswith("/1")]
assert (row.question, row.answer) == ("Is 1 even? Answer yes or no.", "no")
assert verify(row, "No, it is odd.").score == 1 and verify(row, "Perhaps").score is None
benchmark = open_benchmark({"type": "parity", "start": 500}, here / "mixture", "here")
evaluate([Contestant("always yes", None, constant=True)], [benchmark], here / "eval",
         Helpers(engine_for=None, constants={"parity": "yes"}))
results = json.loads((here / "eval/always-yes/results.json").read_text())
print(sum(results["benchmarks"]["parity"]["scores"]["parity"].values()))
"""
RECIPE = """
tasks:
  parity:
    kind: domain
    source: {type: parity, size: 30}
    prompt: "Is {{ number }} even? Answer yes or no."
    verifiers: [yes_no]
    heldout_rows: 5
"""


def test_each_takes_one_file_of_at_most_60_lines_and_no_edit_elsewhere(tmp_path):
    blocks = re.findall(r"```python\n# file: (\S+)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.S)
    assert len(blocks) == 3
    for room in ("data_recipes", "eval"):
        shutil.copytree(ROOT / room, tmp_path / room)
    for name, code in blocks:
        assert not (ROOT / name).exists() and code.count("\n") <= 60
        (tmp_path / name).write_text(code)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "10.0"
