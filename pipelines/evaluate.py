"""The eval stage: baselines, checkpoints, adapters and trained models on the same benchmarks, in one engine."""

from functools import partial
from pathlib import Path
from typing import Any

from data_recipes.decontamination import Protected
from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from data_recipes.row import Row
from data_recipes.store import TRAIN, Mixture
from eval.engines import Engine
from eval.harness import Benchmark, Contestant, Helpers, Shard, evaluate, open_benchmark
from pipelines.experiment import Experiment
from pipelines.one_engine import one_engine

TRAINED = ("sft", "grpo")


def contestants(experiment: Experiment) -> list[Contestant]:
    """Return the leaderboard's rows: baselines, other models, then the trained models in the order they were made."""
    assert experiment.eval is not None
    rows = [
        Contestant(name, None if b.constant else experiment.model, num_examples=b.num_examples, constant=b.constant)
        for name, b in experiment.eval.baselines.items()
    ]
    for name, m in experiment.eval.models.items():
        rows.append(Contestant(name, m.model or experiment.model, adapter=m.adapter))
    rows += [Contestant(s.upper(), f"{{run}}/{s}/model") for s in TRAINED if s in experiment.stages]
    return rows


def run_eval(experiment: Experiment, shard: Shard | None = None) -> None:
    """Run or resume the eval stage, or one shard of it, in the experiment's run folder.

    Raises:
        UserError: the mixture or a trained model is missing.
    """
    if experiment.eval is None:
        raise UserError(f"{experiment.name}: the file has no eval section")
    rows = contestants(experiment)
    run_dir = experiment.run_dir
    mixture = run_dir / "mixture" if experiment.recipe else None
    benchmarks = [open_benchmark(b, mixture, f"{experiment.name}: eval.benchmarks") for b in experiment.eval.benchmarks]
    for stage in TRAINED:
        if stage in experiment.stages and not (run_dir / stage / "model").is_dir():
            raise UserError(f"{run_dir / stage}: not trained yet; run 'whetstone {stage} FILE' first")
    made_by = read_json(run_dir / "environment.json") if (run_dir / "environment.json").exists() else {}
    versions = {**made_by.get("versions", {}), "python": made_by.get("python", "")}
    engine = experiment.engine.model_dump(exclude_defaults=True)
    provenance = {"command": made_by.get("command", ""), "versions": versions, "engine": engine}
    names, baselines = [row.name for row in rows], list(experiment.eval.baselines)
    about = {
        "name": experiment.name,
        "command": provenance["command"],
        "versions": versions,
        "order": names,
        "baselines": baselines,
    }
    write_json(run_dir / "eval" / "run.json", about)
    others = [getattr(b.settings, name, None) for b in benchmarks for name in ("critic", "generator")]
    engine_for = one_engine(experiment.engine, [one.adapter for one in [*rows, *others] if one and one.adapter])

    def of_contestant(row: Contestant) -> Engine:
        assert row.model is not None
        return engine_for(row.model.replace("{run}", str(run_dir)), row.adapter)

    helpers = Helpers(
        engine_for=of_contestant,
        **(_of_mixture(mixture, benchmarks) if mixture else {}),
    )
    evaluate(rows, benchmarks, run_dir / "eval", helpers, seed=experiment.seed, shard=shard, provenance=provenance)


def _of_mixture(folder: Path, benchmarks: list[Benchmark]) -> dict[str, Any]:
    """Return the worked examples and constant answers of a mixture that holds no benchmark item.

    Raises:
        UserError: it does hold one.
    """
    mixture = Mixture(folder)
    train = mixture.rows(TRAIN)
    index = Protected((item.row for benchmark in benchmarks for item in benchmark.items), near=False)
    for row in train:
        match = index.find(row)
        if match:
            raise UserError(
                f"{folder}: the benchmark item {match.item} occurs in the training row {row.id}; leave that row out"
            )
    frequent = {task: t["most_frequent_target"] for task, t in mixture.manifest["tasks"].items()}
    constants = {task: target for task, target in frequent.items() if target}
    return {"examples": partial(worked_examples, train), "constants": constants}


def worked_examples(train: list[Row], task: str, k: int) -> list[Row] | None:
    """Return k training rows of `task` in a fixed order, of as many different answers as there are.

    Returns:
        None where the task has no training rows at all, as another benchmark's tasks have none.

    Raises:
        UserError: the task has fewer training rows.
    """
    by_answer: dict[str | None, list[Row]] = {}
    for row in sorted((row for row in train if row.task == task), key=lambda row: row.id):
        by_answer.setdefault(row.answer, []).append(row)
    if not by_answer:
        return None
    turns = [rows[i] for i in range(k) for rows in by_answer.values() if i < len(rows)]
    if len(turns) < k:
        raise UserError(f"eval.baselines: {task} has {len(turns)} training rows, fewer than the {k} examples asked for")
    return turns[:k]
