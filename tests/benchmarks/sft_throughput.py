"""LoRA fine-tuning against TRL's SFTTrainer and LLaMA-Factory: useful tokens per second, and share of the matmul limit.

    python -m tests.benchmarks.sft_throughput             # needs WHETSTONE_DATA and a quiet machine; some 20 minutes

Rows of the cocktail recipe, as long and as short as its own, the same for every side and compared token by token: an
epoch of them in float32, adapters on all linear layers, no checkpointing, `sdpa` attention, the same threads, each side
in a process of its own, run in turn. A pass before the clock starts warms up. Useful tokens are those that are not
padding; the optimiser is timed with the rest.

Then full batches, rows all cut to one length, for how much of this machine's float32 matrix product the trainers use.
Counted for both alike is what the loss needs, twice over for forward and backward and not again where something is
computed twice: 4 FLOP for each weight of the linear layers and each token, 6 for each weight of the adapters (their own
gradient is the third product), 4 for each weight of the head and each *trained* token; attention's own products are
left out.

TRL's packing sets no padding but flattens a batch into one sequence, whose rows are kept apart by a mask as wide as all
of it. LLaMA-Factory is installed into ``build/llama-factory`` (or stands in the folder LLAMA_FACTORY names), beside
nothing of ours; where it cannot be had the rest is measured.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS, ROWS, BATCH, LENGTH = 2, 48, 8, 768
PACKED_BATCH = 2
"""Packed sequences of `LENGTH` a step: about the tokens of `BATCH` rows."""
FULL_ROWS, FULL_LENGTH = 32, 256
RANK, ALPHA, RATE = 16, 32, 1e-3
PADDING = "<empty_output>"
"""Pads on every side: a token that no row has, where the model's own ends every turn."""

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "sft-throughput"
PEER = Path(os.environ.get("LLAMA_FACTORY", ROOT / "build" / "llama-factory")).absolute()
PINS = (  # the newest that LLaMA-Factory allows, and of what it needs only what text needs
    *("llamafactory==0.9.5", "transformers==5.6.0", "trl==0.24.0", "datasets==4.0.0", "peft==0.18.1"),
    *("accelerate==1.11.0", "tokenizers==0.22.2", "omegaconf==2.4.0", "antlr4-python3-runtime==4.9.3", "dill==0.3.8"),
    *("multiprocess==0.70.16", "fsspec==2025.3.0", "tyro==0.8.14", "torchdata==0.11.0"),
)

SIDES = ("ours", "ours-packed", "trl", "trl-packed", "llama-factory", "llama-factory-packed")
FULL_SIDES = ("ours-full", "trl-full")
NAMES = {
    "ours": "ours, rows of like length",
    "ours-packed": "ours, packed",
    "trl": "TRL, as it comes",
    "trl-packed": "TRL, packed (bfd)",
    "llama-factory": "LLaMA-Factory, as it comes",
    "llama-factory-packed": "LLaMA-Factory, neat packing",
    "ours-full": "ours",
    "trl-full": "TRL",
}


# What runs in every process, the peer's too: nothing of ours or of TRL's may be imported up here.


def meter(file: Path) -> type:
    """Return a trainer callback that measures a run and writes ``seconds``, tokens and weights to `file`."""
    import torch
    from transformers import TrainerCallback

    class Meter(TrainerCallback):
        """Counts what goes through the embeddings between the first step's start and the last one's end."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self._batches: list[torch.Tensor] = []
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(100, 40_000, (4, 256), generator=generator)
            model(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids)).loss.backward()
            model.zero_grad()
            embeddings = model.get_input_embeddings()
            embeddings.register_forward_pre_hook(lambda module, inputs: self._batches.append(inputs[0].clone()))
            self._start = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._end = time.monotonic()

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            padding = json.loads((WORK / "padding.json").read_text())
            ids = torch.cat([batch.reshape(-1) for batch in self._batches])
            useful = ids[ids != padding]
            weights = {"linear": 0, "adapters": 0, "head": model.get_output_embeddings().weight.numel()}
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    weights["adapters"] += parameter.numel()
                elif "_proj" in name:
                    weights["linear"] += parameter.numel()
            kinds = {str(parameter.dtype) for parameter in model.parameters()}
            found = {
                "seconds": self._end - self._start,
                "steps": state.global_step,
                "useful": len(useful),
                "padded": len(ids),
                "counts": torch.bincount(useful, minlength=50_000).tolist(),
                "weights": weights,
                "settings": [model.config._attn_implementation, model.is_gradient_checkpointing, *sorted(kinds)],
                "loss": [line["loss"] for line in state.log_history if "loss" in line],
            }
            file.write_text(json.dumps(found))

    return Meter


def measure_side(side: str, seed: int, file: Path) -> None:
    """Run a side in this process."""
    if side == "matmul":
        file.write_text(json.dumps(matmul_limit()))
        return
    from transformers import trainer

    trainer.DEFAULT_CALLBACKS.append(meter(file))
    program, _, form = side.rpartition("-") if side.endswith(("-packed", "-full")) else (side, "", "")
    {"ours": ours, "trl": theirs, "llama-factory": peers}[program](form, seed)


def matmul_limit() -> float:
    """Return the FLOP a second of a large float32 matrix product, the best of twenty."""
    import torch

    size = 3072
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(20):
        start = time.monotonic()
        torch.mm(a, b)
        best = min(best, time.monotonic() - start)
    return 2 * size**3 / best


def ours(form: str, seed: int) -> None:
    """Train with `pipelines.sft`, as `whetstone sft` does."""
    from pipelines.experiment import load_experiment
    from pipelines.sft import train

    folder = WORK / ("full" if form == "full" else "mixed")
    shutil.rmtree(folder / "run" / "sft", ignore_errors=True)
    forms = {"packed": {"packing": True, "per_device_train_batch_size": PACKED_BATCH}}
    values = {**forms.get(form, {}), "max_length": FULL_LENGTH if form == "full" else LENGTH}
    train(load_experiment(folder / "experiment.yaml", [f"seed={seed}", *(f"sft.{k}={v}" for k, v in values.items())]))


def theirs(form: str, seed: int) -> None:
    """Train with TRL's own trainer, its own order and its own collator."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = json.loads((WORK / ("full" if form == "full" else "mixed") / "rows.json").read_text())
    masks = [[int(place >= row["target"]) for place in range(len(row["ids"]))] for row in rows]
    arguments = SFTConfig(
        output_dir=str(WORK / "trl"),
        per_device_train_batch_size=PACKED_BATCH if form == "packed" else BATCH,
        max_length=FULL_LENGTH if form == "full" else LENGTH,
        packing=form == "packed",
        num_train_epochs=1,
        seed=seed,
        learning_rate=RATE,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        completion_only_loss=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(WORK / "model", dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": [row["ids"] for row in rows], "completion_mask": masks}),
        processing_class=AutoTokenizer.from_pretrained(WORK / "model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()


def peers(form: str, seed: int) -> None:
    """Train with LLaMA-Factory's own entry point."""
    from llamafactory.train.tuner import run_exp

    batch = PACKED_BATCH if form == "packed" else BATCH
    arguments = {
        **{"stage": "sft", "do_train": True, "model_name_or_path": str(WORK / "model"), "template": "empty"},
        **{"dataset_dir": str(WORK / "mixed"), "dataset": "rows", "cutoff_len": LENGTH, "mask_history": True},
        **{"finetuning_type": "lora", "lora_target": "all", "lora_rank": RANK, "lora_alpha": ALPHA},
        **{"packing": form == "packed", "neat_packing": form == "packed"},
        **{"per_device_train_batch_size": batch, "num_train_epochs": 1, "seed": seed, "learning_rate": RATE},
        **{"disable_gradient_checkpointing": True, "flash_attn": "sdpa", "fp16": False, "bf16": False},
        **{"output_dir": str(WORK / "llama-factory"), "save_strategy": "no", "report_to": "none", "use_cpu": True},
        **{"logging_steps": 1, "disable_tqdm": True, "dataloader_pin_memory": False},
        **{"overwrite_cache": True, "cache_dir": str(WORK / "cache")},
    }
    run_exp(arguments)


# What prepares and compares, in our own environment.


def main() -> None:
    """Measure, compare and print."""
    WORK.mkdir(parents=True, exist_ok=True)
    full_flop, share = prepare()
    sides = [side for side in SIDES if _peer_is_there() or not side.startswith("llama-factory")]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in (*sides, *FULL_SIDES, "matmul")}
    for number in range(ROUNDS):
        for side in found:
            found[side].append(run(side, number))
            if side != "matmul":
                last = found[side][-1]
                rate = last["useful"] / last["seconds"]
                print(f"  round {number + 1}, {side}: {rate:.1f} useful tokens/s, load {os.getloadavg()[0]:.1f}")
    _compare({side: found[side] for side in sides})
    _print_throughput({side: found[side] for side in sides}, share)
    _print_shares({side: found[side] for side in FULL_SIDES}, max(found["matmul"]), full_flop)


def prepare() -> tuple["Flop", float]:
    """Write the model with another padding token and both sets of rows.

    Returns:
        What tells an epoch of full batches' FLOP, and the padding of the whole recipe in batches as they come.
    """
    import numpy as np
    from transformers import AutoTokenizer

    from data_recipes.mixing import draws_of
    from eval.models import resolve_model

    shutil.rmtree(WORK / "model", ignore_errors=True)
    shutil.copytree(resolve_model("smollm2-135m-instruct"), WORK / "model")
    tokenizer = AutoTokenizer.from_pretrained(WORK / "model")
    tokenizer.pad_token = PADDING
    tokenizer.save_pretrained(WORK / "model")
    (WORK / "padding.json").write_text(str(tokenizer.pad_token_id))
    mixture = _mixture(WORK / "cocktail", "cocktail")
    order = draws_of(mixture.manifest).order(seed=0)
    rows = order.indices(0, len(order))
    rows = rows[(mixture.lengths[rows] <= LENGTH) & (mixture.targets[rows] < mixture.lengths[rows])]
    lengths = mixture.lengths[rows[: len(rows) // BATCH * BATCH]].reshape(-1, BATCH)
    share = 1 - lengths.sum() / (lengths.max(axis=1) * BATCH).sum()
    rows = rows[np.lexsort((rows, mixture.lengths[rows]))]
    rows = rows[((np.arange(ROWS) + 0.5) * len(rows) / ROWS).astype(int)]  # evenly over the recipe's lengths
    _write(WORK / "mixed", mixture, np.random.default_rng(0).permutation(rows), tokenizer, None)
    places = np.arange(len(mixture))
    long = places[(mixture.lengths >= FULL_LENGTH) & (mixture.targets < FULL_LENGTH * 0.75)]
    chosen = np.random.default_rng(0).permutation(long)[:FULL_ROWS]
    _write(WORK / "full", mixture, chosen, tokenizer, FULL_LENGTH)
    trained = int((FULL_LENGTH - mixture.targets[chosen]).sum())
    return Flop(FULL_ROWS * FULL_LENGTH, trained), float(share)


class Flop:
    """The FLOP of an epoch that its loss needs; the module's docstring says what counts."""

    def __init__(self, tokens: int, trained: int) -> None:
        self.tokens, self.trained = tokens, trained

    def __call__(self, weights: dict[str, int]) -> float:
        """Return the sum for a model of so many ``linear``, ``adapters`` and ``head`` weights."""
        a_token = 4 * weights["linear"] + 6 * weights["adapters"]
        return self.tokens * a_token + self.trained * 4 * weights["head"]


def _mixture(folder: Path, recipe: str) -> Any:
    """Build a mixture of the recipe, or open the one built before."""
    import yaml

    from data_recipes.store import Mixture
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    folder.mkdir(parents=True, exist_ok=True)
    sft = {
        **{"lora": {"r": RANK, "lora_alpha": ALPHA}, "dtype": "float32", "learning_rate": RATE, "num_train_epochs": 1},
        **{"per_device_train_batch_size": BATCH, "logging_steps": 1, "save_strategy": "no"},
    }
    head = {"name": "throughput", "model": str(WORK / "model"), "recipe": recipe, "output_dir": str(folder / "run")}
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**head, "sft": sft}))
    if not (folder / "run" / "mixture" / "manifest.json").exists():
        mix(load_experiment(folder / "experiment.yaml", check_trl=False))
    return Mixture(folder / "run" / "mixture")


def _write(folder: Path, mixture: Any, chosen: Any, tokenizer: Any, cut: int | None) -> None:
    """Write some rows as every side reads them: our mixture, token ids, and prompts with their completions as text."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks: dict[str, list[str]] = {}
    tokens, texts = [], []
    for row in (mixture.row(int(place)) for place in chosen):
        tasks.setdefault(row.task, []).append(json.dumps(row.model_dump(mode="json")) + "\n")
    lines = ["cleaning: {duplicates: false, decontaminate: none}\n", "tasks:\n"]
    for number, (task, found) in enumerate(tasks.items()):
        (folder / f"{number}.jsonl").write_text("".join(found))
        lines.append(f"  {task}: {{kind: domain, source: {{type: files, path: {number}.jsonl}}}}\n")
    (folder / "recipe.yaml").write_text("".join(lines))
    for place in chosen:
        ids = mixture.tokens[mixture.offsets[place] : mixture.offsets[place + 1]].tolist()
        target = int(mixture.targets[place])
        tokens.append({"ids": ids[:cut], "target": target})
        prompt, completion = (tokenizer.decode(part) for part in (ids[:target], ids[target:]))
        texts.append({"instruction": prompt, "input": "", "output": completion})
    (folder / "rows.json").write_text(json.dumps(tokens))
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "texts.json"}}))
    _mixture(folder, "recipe.yaml")


def _peer_is_there() -> bool:
    packages, stub = PEER / "packages", PEER / "stub" / "torchaudio"
    if not (packages / "llamafactory").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *PINS]
        if subprocess.run(command).returncode:
            print(f"LLaMA-Factory is not in {PEER} and cannot be installed there: measured without it")
            return False
    stub.mkdir(parents=True, exist_ok=True)  # imported for sounds, of which there are none
    (stub / "__init__.py").touch()
    return True


def run(side: str, number: int) -> Any:
    """Run a side in a process of its own; return what it measured."""
    file = WORK / f"{side}-{number}.json"
    file.unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    if side.startswith("llama-factory"):
        environment["PYTHONPATH"] = os.pathsep.join(str(PEER / name) for name in ("stub", "packages"))
        environment["DISABLE_VERSION_CHECK"] = "1"
    command = [sys.executable, "-m", "tests.benchmarks.sft_throughput", side, str(number), str(file)]
    log = WORK / f"{side}-{number}.log"
    with open(log, "w") as output:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output).returncode
    if code:
        raise SystemExit(f"{log}: exit code {code}\n" + log.read_text()[-3000:])
    return json.loads(file.read_text())


def _compare(found: dict[str, list[dict[str, Any]]]) -> None:
    """Say whether every side read the same tokens with the same settings."""
    first = found["trl"][0]
    for side, runs in found.items():
        for one in runs:
            if one["settings"] != first["settings"]:
                print(f"NOT ALIKE: {side} ran with {one['settings']}, TRL with {first['settings']}")
            unlike = sum(abs(a - b) for a, b in zip(one["counts"], first["counts"], strict=True))
            if unlike:
                print(f"{side}: {unlike} of {first['useful']} tokens more or fewer than TRL read")


def _print_throughput(found: dict[str, list[dict[str, Any]]], share: float) -> None:
    rates = {side: [one["useful"] / one["seconds"] for one in runs] for side, runs in found.items()}
    first = found["trl"][0]
    print(
        f"\n{ROWS} rows of the cocktail up to {LENGTH} tokens, {first['useful']} tokens; batches of {BATCH} rows,"
        f" packed {PACKED_BATCH} sequences of {LENGTH}; {', '.join(map(str, first['settings']))};"
        f" {os.cpu_count()} threads, {ROUNDS} rounds in turn; {share:.1%} of the recipe's own batches as they come is"
        " padding\n"
    )
    print("| | useful tokens/s | padding | steps | ratio to TRL as it comes |")
    print("|---|---:|---:|---:|---:|")
    for side, runs in found.items():
        ratios = [mine / other for mine, other in zip(rates[side], rates["trl"], strict=True)]
        padding = ", ".join(f"{1 - one['useful'] / one['padded']:.1%}" for one in runs)
        print(
            f"| {NAMES[side]} | {', '.join(f'{rate:.1f}' for rate in rates[side])} | {padding} | {runs[0]['steps']} |"
            f" {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


def _print_shares(found: dict[str, list[dict[str, Any]]], limit: float, flop: Flop) -> None:
    print(
        f"\n{FULL_ROWS} rows cut to {FULL_LENGTH} tokens, {flop.trained / flop.tokens:.0%} of them trained on; a"
        f" float32 product of 3072 x 3072 makes {limit / 1e9:.0f} GFLOP/s\n"
    )
    print("| full batches | tokens/s | GFLOP/s | share of the matmul limit |")
    print("|---|---:|---:|---:|")
    for side, runs in found.items():
        rates = [flop(one["weights"]) / one["seconds"] for one in runs]
        tokens = ", ".join(f"{one['useful'] / one['seconds']:.1f}" for one in runs)
        gigas = ", ".join(f"{rate / 1e9:.0f}" for rate in rates)
        print(f"| {NAMES[side]} | {tokens} | {gigas} | {', '.join(f'{rate / limit:.0%}' for rate in rates)} |")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure_side(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
