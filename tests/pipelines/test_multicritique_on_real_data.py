"""The whole multicritique stage on 50 responses of known truth, the real model through vLLM, killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml

from data_recipes.files import read_json, read_jsonl
from data_recipes.row import Row
from tests.pipelines.sft_runs import ROOT


@pytest.mark.slow
def test_fifty_responses_with_a_kill_on_the_way(tmp_path, capfd):
    assert os.environ.get("WHETSTONE_DATA"), "WHETSTONE_DATA has to name the folder of the data sets"
    experiment = yaml.safe_load((ROOT / "experiments" / "multicritique.yaml").read_text())
    file, run = tmp_path / "experiment.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump({**experiment, "output_dir": str(run)}))
    command = [sys.executable, "-m", "launch.cli", "multicritique", str(file)]
    start = time.monotonic()
    log = run / "multicritique" / "requests.jsonl"
    with open(tmp_path / "log", "w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < 150):
            time.sleep(0.2)
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = log.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    seconds = time.monotonic() - start

    folder = run / "multicritique"
    results = read_json(folder / "results.json")
    with capfd.disabled():
        print(f"\n{seconds:.0f} s with the kill; {json.dumps(results)}\n{done.stdout}")
    assert log.read_bytes().startswith(before), "what was answered before the kill is still there"
    asked = Counter((line["key"], line["attempt"]) for line in read_jsonl(log))
    assert set(asked.values()) == {1}, "nothing was asked twice"
    assert results["items"] == 50 and len({line["agent"] for line in read_jsonl(log)}) >= 3
    for step in ("information", "critiques", "judgements", "final critiques", "revisions"):
        assert results["answers"][step]["asked"] > 0
    for critic in experiment["multicritique"]["agents"]:
        assert {"precision", "recall"} <= set(results["known truth"][critic]["units"])
    rows = [Row.model_validate(row) for row in read_jsonl(folder / "train.jsonl")]
    assert len(rows) == results["rows"] > 0
    assert all(row.target.endswith(f"Judgment: {row.answer}") for row in rows)
