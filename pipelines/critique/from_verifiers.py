"""Critique rows from verifiers: sample answers, let each task's verifier label them, keep right and wrong in balance.

Training rows criticise answers to training questions, held-out rows answers to held-out questions, both sampled from
the experiment's own model. Every sample is stored as soon as it is made; running again samples only what is missing.
"""

from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint, write_atomically, write_json
from data_recipes.progress import say, track
from data_recipes.reading import task_rows
from data_recipes.row import Row
from eval.critique import Sample, balanced, certainty, critique_row
from eval.engines import Request, open_engine
from eval.models import resolve_model
from eval.verifiers import verify
from pipelines.experiment import CritiqueSection, Experiment

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
    requests: dict[str, Request] = {}
    for task in section.tasks:
        train, heldout = task_rows(recipe, task, experiment.run_dir)
        examples, asked = train[: section.num_examples], train[section.num_examples :]
        questions["train"][task] = asked[: section.num_questions]
        questions["heldout"][task] = heldout
        for row in questions["train"][task] + heldout:
            requests |= _requests(row, examples, section, experiment.seed)
    samples = _sample(experiment, folder, requests)

    account = {}
    for split in SPLITS:
        limit = section.train_rows if split == "train" else section.heldout_rows
        rows = []
        for task in section.tasks:
            made, counts = _rows_of(task, questions[split][task], samples, section, limit, experiment.model)
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


def _requests(row: Row, examples: list[Row], section: CritiqueSection, seed: int) -> dict[str, Request]:
    shots = [turn.model_dump() for example in examples for turn in example.messages]
    return {
        (key := f"{row.id}#{number}"): Request(
            key=key,
            messages=[*shots, *row.prompt],
            max_tokens=section.max_tokens,
            temperature=section.temperature,
            seed=int(fingerprint([seed, row.id, number]), 16) % 2**31,
        )
        for number in range(section.num_samples)
    }


def _sample(experiment: Experiment, folder: Path, requests: dict[str, Request]) -> dict[str, str]:
    """Return {request key: completion}, from the log where it is there, else from the model."""
    log = JsonlLog(folder / "samples.jsonl")
    stored = {line["key"]: line["completion"] for line in log.rows}
    missing = [request for key, request in requests.items() if key not in stored]
    if missing:
        if stored:
            say(f"  {len(stored)} samples kept, {len(missing)} to go")
        engine = open_engine(experiment.engine, resolve_model(experiment.model))
        for request, completion in track(engine.generate(missing), "sample answers", len(missing)):
            stored[request.key] = completion.text
            line = {"key": request.key, "completion": completion.text, "seed": request.seed}
            log.append({**line, "num_tokens": completion.num_tokens, "finish_reason": completion.finish_reason})
    log.close()
    return stored


def _rows_of(
    task: str, questions: list[Row], samples: dict[str, str], section: CritiqueSection, limit: int, model: str
) -> tuple[list[Row], dict[str, int]]:
    by_question: dict[str, list[Sample]] = {}
    for row in questions:
        texts = [samples[f"{row.id}#{number}"] for number in range(section.num_samples)]
        by_question[row.id] = [Sample(text, verify(row, text), number) for number, text in enumerate(texts)]
    rows = {row.id: row for row in questions}
    made = [
        critique_row(rows[question], sample, model, certainty(by_question[question]))
        for question, sample in balanced(by_question, limit)
    ]
    flat = [sample for of_question in by_question.values() for sample in of_question]
    counts = {
        "questions": len(questions),
        "samples": len(flat),
        "right": sum(sample.verdict.score == 1.0 for sample in flat),
        "unparsed": sum(sample.verdict.score is None for sample in flat),
        "rows": len(made),
    }
    if not made:
        raise UserError(
            f"critique.tasks: of {len(flat)} sampled answers to {task} {counts['right']} are right: nothing to balance;"
            " raise critique.num_samples or num_examples, or leave the task out"
        )
    return made, counts
