"""Every strategy on two CPU processes against one process: 20 steps, and runs that change strategy half way."""

import json
import shutil

import pytest

from tests.pipelines.sft_runs import launch, metrics

SECTIONS = """
sft:
  lora: {r: 8}
  dtype: float32
  bf16: false
  learning_rate: 1e-3
  warmup_steps: 2
  logging_steps: 1
  batch_size: 4
  max_length: 256
  max_steps: 20
  save_steps: 10
"""
STRATEGIES = ("cpu", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2")
"""Files in launch/accelerate; ``cpu`` is DDP."""
CONTINUED = (("zero3", "single"), ("single", "zero3"), ("fsdp2", "zero2"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_folder):
    """A function of a strategy: the folder of its run of 20 steps, made when first asked for."""
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix
    from tests.conftest import write_experiment

    folder = tmp_path_factory.mktemp("strategies")
    file = write_experiment(folder, SECTIONS)
    mix(load_experiment(file, check_trl=False))

    def start(run, strategy):
        processes = 1 if strategy == "single" else 2
        launch(file, "--set", f"output_dir={run}", processes=processes, strategy=strategy)
        record = json.loads((run / "sft" / "strategy.json").read_text())
        name = "ddp" if strategy == "cpu" else strategy
        assert (record["asked"], record["runs"], record["world_size"]) == (name, name, processes)
        return run

    def run_of(strategy, goes_on_from=None):
        run = folder / (f"{goes_on_from}-{strategy}" if goes_on_from else strategy)
        if not run.exists():
            shutil.copytree(folder / "run" / "mixture", run / "mixture")
            if goes_on_from:
                at_half = "sft/checkpoints/checkpoint-10"
                shutil.copytree(run_of(goes_on_from) / at_half, run / at_half)
            start(run, strategy)
        return run

    return run_of


def difference(run, other) -> float:
    """Return the largest difference of two runs' losses at a step, the tasks' included."""
    ours, theirs = ({line["step"]: line for line in metrics(one)} for one in (run, other))
    return max(
        abs(line[key] - theirs[step][key]) for step, line in ours.items() for key in line if key.startswith("loss")
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_follows_the_losses_of_one_process(runs, strategy):
    alone, together = runs("single"), runs(strategy)
    losses = [line["loss"] for line in metrics(alone)]
    assert len(losses) == len(metrics(together)) == 20
    assert sum(losses[:3]) / 3 - sum(losses[-3:]) / 3 >= 0.3
    apart = difference(alone, together)
    print(f"{strategy}: {apart:.1e} from one process at most")
    assert apart < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("before, after", CONTINUED)
def test_a_run_goes_on_under_another_strategy(runs, before, after):
    run = runs(after, goes_on_from=before)
    assert [line["step"] for line in metrics(run)] == list(range(11, 21))
    apart = difference(run, runs("single"))
    print(f"{before} -> {after}: {apart:.1e} from one process at most")
    assert apart < 1e-3
