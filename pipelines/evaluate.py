"""The eval stage: the baselines and the trained models on the experiment's benchmarks, in one engine."""

from collections.abc import Callable
from pathlib import Path

from data_recipes.decontamination import Protected
from data_recipes.errors import UserError
from data_recipes.row import Row
from data_recipes.store import TRAIN, Mixture
from data_recipes.validation import validated
from eval.benchmarks import load_benchmark
from eval.engines import Engine, EngineSettings, open_engine
from eval.harness import Contestant, Item, evaluate
from eval.models import resolve_model
from pipelines.experiment import Experiment


def contestants(experiment: Experiment) -> list[Contestant]:
    """Return the leaderboard's rows: the baselines, then the trained models in the order they were made."""
    assert experiment.eval is not None
    rows = [
        Contestant(name, None if b.constant else experiment.model, b.num_examples, b.constant)
        for name, b in experiment.eval.baselines.items()
    ]
    for stage in ("sft", "grpo"):
        if stage in experiment.stages:
            rows.append(Contestant(stage.upper(), f"{{run}}/{stage}/model"))
    return rows


def run_eval(experiment: Experiment) -> None:
    """Run or resume the eval stage in the experiment's run folder.

    Raises:
        UserError: the mixture or a trained model is missing.
    """
    if experiment.eval is None:
        raise UserError(f"{experiment.name}: the file has no eval section")
    mixture = experiment.run_dir / "mixture"
    items = []
    for settings in experiment.eval.benchmarks:
        benchmark = load_benchmark(settings["type"])
        checked = validated(benchmark.Settings, settings, f"{experiment.name}: eval.benchmarks")
        items += [Item(settings["type"], checked.max_tokens, row) for row in benchmark.items(checked, mixture)]
    if not items:
        raise UserError(f"{experiment.name}: the benchmarks hold no items; give the recipe's tasks heldout_rows")
    for stage in ("sft", "grpo"):
        if stage in experiment.stages and not (experiment.run_dir / stage / "model").is_dir():
            raise UserError(f"{experiment.run_dir / stage}: not trained yet; run 'whetstone {stage} FILE' first")
    opened = Mixture(mixture)
    train = opened.rows(TRAIN)
    index = Protected((item.row for item in items), near=False)
    for row in train:
        match = index.find(row)
        if match:
            raise UserError(
                f"{mixture}: the benchmark item {match.item} occurs in the training row {row.id}; leave that row out"
            )
    manifest = opened.manifest
    evaluate(
        contestants(experiment),
        items,
        experiment.run_dir / "eval",
        engine_for=one_engine(experiment.engine, experiment.run_dir),
        examples=lambda task, k: worked_examples(train, task, k),
        constants={
            task: t["most_frequent_target"] for task, t in manifest["tasks"].items() if t["most_frequent_target"]
        },
        seed=experiment.seed,
    )


def worked_examples(train: list[Row], task: str, k: int) -> list[Row]:
    """Return k training rows of `task` in a fixed order, of as many different answers as there are.

    Raises:
        UserError: the task has fewer training rows.
    """
    by_answer: dict[str | None, list[Row]] = {}
    for row in sorted((row for row in train if row.task == task), key=lambda row: row.id):
        by_answer.setdefault(row.answer, []).append(row)
    turns = [rows[i] for i in range(k) for rows in by_answer.values() if i < len(rows)]
    if len(turns) < k:
        raise UserError(f"eval.baselines: {task} has {len(turns)} training rows, fewer than the {k} examples asked for")
    return turns[:k]


def one_engine(settings: EngineSettings, run_dir: Path) -> Callable[[str], Engine]:
    """Return a function that opens one engine at the first call and swaps weights into it at later ones."""
    running: dict[str, object] = {}

    def engine_for(model: str) -> Engine:
        folder = resolve_model(model.replace("{run}", str(run_dir)))
        if not running:
            running["engine"], running["model"] = open_engine(settings, folder), folder
        elif running["model"] != folder:
            running["engine"].load_weights(folder)
            running["model"] = folder
        return running["engine"]

    return engine_for
