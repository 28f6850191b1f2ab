"""Critique rows from verifiers: sample answers, let each task's verifier label them, keep right and wrong in balance.

Training rows criticise answers to training questions, held-out rows answers to held-out questions, sampled from the
experiment's own model and any others. Every sample is stored as soon as it is made; running again samples only what is
missing.
"""

from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint, write_atomically, write_json
from data_recipes.progress import say, track
from data_recipes.reading import task_rows
from data_recipes.row import Row
from eval.critique import Sample, balanced, certainty, correction_row, critique_row, tertiles
from eval.engines import Request
from eval.verifiers import verify
from pipelines.experiment import CritiqueSection, Experiment, ModelSection
from pipelines.one_engine import one_engine

SPLITS = ("train", "heldout")


def make_critiques(experiment: Experiment) -> None:
    """Run or resume the critique stage: writes ``critique/train.jsonl`` and ``critique/heldout.jsonl``.

    Raises:
        UserError: a task's samples hold no right or no wrong answer at all, so nothing can be balanced.
    """
    section = experiment.critique
    if section is None:
        raise UserError(f"{experiment.name}: the file has no critique section")
    recipe, _ = experiment.mixture_recipe
    folder = experiment.run_dir / "critique"
    questions: dict[str, dict[str, list[Row]]] = {split: {} for split in SPLITS}
    requests: dict[str, dict[str, Request]] = {name: {} for name in ("", *section.models)}
    for task in section.tasks:
        train, heldout = task_rows(recipe, task, experiment.run_dir)
        examples, asked = train[: section.num_examples], train[section.num_examples :]
        questions["train"][task] = asked[: section.num_questions]
        questions["heldout"][task] = heldout
        for row in questions["train"][task] + heldout:
            for name, of_model in requests.items():
                of_model |= _requests(row, examples, section, experiment.seed, name)
    samples = _sample(experiment, folder, requests)

    account = {}
    for split in SPLITS:
        limit = section.train_rows if split == "train" else section.heldout_rows
        rows = []
        for task in section.tasks:
            made, counts = _rows_of(task, questions[split][task], samples, section, limit, experiment)
            rows += made
            account[f"{split}/{task}"] = counts
        write_atomically(folder / f"{split}.jsonl", "".join(row.model_dump_json() + "\n" for row in rows))
    write_json(folder / "results.json", account)
    for task in section.tasks:
        counts = account[f"train/{task}"]
        say(
            f"  critique/{task}: {counts['rows']} training and {account[f'heldout/{task}']['rows']} held-out rows;"
            f" of {counts['samples']} samples {counts['right']} right, {counts['unparsed']} unparsed"
        )


def _key(row_id: str, model: str, number: int) -> str:
    return f"{row_id}#{model}#{number}" if model else f"{row_id}#{number}"


def _requests(row: Row, examples: list[Row], section: CritiqueSection, seed: int, model: str) -> dict[str, Request]:
    shots = [turn.model_dump() for example in examples for turn in example.messages]
    return {
        (key := _key(row.id, model, number)): Request(
            key=key,
            messages=[*shots, *row.prompt],
            max_tokens=section.max_tokens,
            temperature=section.temperature,
            seed=int(fingerprint([seed, row.id, number, *([model] if model else [])]), 16) % 2**31,
        )
        for number in range(section.num_samples)
    }


def _sample(experiment: Experiment, folder: Path, requests: dict[str, dict[str, Request]]) -> dict[str, str]:
    """Return {request key: completion}, from the log where it is there, else from the model.

    Args:
        requests: name of the model (of the experiment's own: nothing) -> key -> request.
    """
    assert experiment.critique is not None
    log = JsonlLog(folder / "samples.jsonl")
    stored = {line["key"]: line["completion"] for line in log.rows}
    wanted = {key for of_model in requests.values() for key in of_model}
    if stored and (missing := len(wanted - stored.keys())):
        say(f"  {len(stored)} samples kept, {missing} to go")
    models = {"": ModelSection(), **experiment.critique.models}
    engine_for = one_engine(experiment.engine, [one.adapter for one in models.values() if one.adapter])
    for name, of_model in requests.items():
        missing = [request for key, request in of_model.items() if key not in stored]
        if not missing:
            continue
        engine = engine_for(models[name].model or experiment.model, models[name].adapter)
        what = f"sample answers of {name}" if name else "sample answers"
        for request, completion in track(engine.generate(missing), what, len(missing)):
            stored[request.key] = completion.text
            line = {"key": request.key, "completion": completion.text, "seed": request.seed}
            log.append({**line, "num_tokens": completion.num_tokens, "finish_reason": completion.finish_reason})
    log.close()
    return stored


def _rows_of(
    task: str,
    questions: list[Row],
    samples: dict[str, str],
    section: CritiqueSection,
    limit: int,
    experiment: Experiment,
) -> tuple[list[Row], dict[str, int]]:
    by_question: dict[str, list[Sample]] = {}
    for row in questions:
        by_question[row.id] = [
            Sample(text, verify(row, text), place * section.num_samples + number, name or experiment.model)
            for place, name in enumerate(("", *section.models))
            for number in range(section.num_samples)
            for text in [samples[_key(row.id, name, number)]]
        ]
    rows = {row.id: row for row in questions}
    sure = {question: certainty(found) for question, found in by_question.items()}
    third = tertiles(sure)
    chosen = balanced(by_question, limit)
    made = [critique_row(rows[question], sample, sure[question], third[question]) for question, sample in chosen]
    if section.corrections:
        right = {question: sample for question, sample in chosen if sample.verdict.score == 1.0}
        made += [
            correction_row(rows[question], sample, right.get(question))
            for question, sample in chosen
            if sample.verdict.score != 1.0
        ]
    flat = [sample for of_question in by_question.values() for sample in of_question]
    counts = {
        "questions": len(questions),
        "samples": len(flat),
        "right": sum(sample.verdict.score == 1.0 for sample in flat),
        "unparsed": sum(sample.verdict.score is None for sample in flat),
        "rows": len(chosen),
        "corrections": len(made) - len(chosen),
    }
    if not made:
        raise UserError(
            f"critique.tasks: of {len(flat)} sampled answers to {task} {counts['right']} are right: nothing to balance;"
            " raise critique.num_samples or num_examples, or leave the task out"
        )
    return made, counts
