"""Generated tokens per second of the harness against vLLM's own ``LLM.generate``, on the same prompts in one process.

    python -m tests.benchmarks.throughput                 # needs WHETSTONE_DATA and a quiet machine

Our side is the whole of `evaluate`: requests, generation, a stored line a completion, scoring. Both run in turn in one
engine, whose prefix cache is emptied before each.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from eval.engines import EngineSettings, open_engine, prompt_tokens
from eval.harness import Contestant, Helpers, evaluate, open_benchmark
from eval.models import resolve_model

ROUNDS, NEW_TOKENS = 3, 64


def main(items_per_category: int = 4) -> None:
    """Measure and print."""
    model = resolve_model("smollm2-135m-instruct")
    engine = open_engine(EngineSettings(max_model_len=4096, kv_cache_gb=4), model)
    asked = {"type": "mmlu_pro", "items_per_category": items_per_category, "max_tokens": NEW_TOKENS}
    benchmark = open_benchmark({**asked, "bits_per_byte": False}, None, "throughput")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        engine.llm.reset_prefix_cache()
        theirs.append(_raw(engine, benchmark))
        engine.llm.reset_prefix_cache()
        ours.append(_harness(engine, benchmark))
    ratio = median(mine / raw for mine, raw in zip(ours, theirs, strict=True))
    print(
        f"{len(benchmark.items)} prompts, {NEW_TOKENS} new tokens, {ROUNDS} rounds in turn; generated tokens per second"
    )
    print(f"LLM.generate {', '.join(f'{x:.1f}' for x in theirs)}; harness {', '.join(f'{x:.1f}' for x in ours)}")
    print(f"median ratio {ratio:.3f}")


def _raw(engine, benchmark) -> float:
    from vllm import SamplingParams

    tokenizer = engine.llm.get_tokenizer()
    start = time.monotonic()
    prompts = [{"prompt_token_ids": prompt_tokens(tokenizer, item.row.prompt, False)} for item in benchmark.items]
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, stop=["Question:"])
    outputs = engine.llm.generate(prompts, sampling, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.monotonic() - start)


def _harness(engine, benchmark) -> float:
    import json

    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        evaluate([Contestant("base", "m")], [benchmark], Path(folder), Helpers(lambda contestant: engine))
        seconds = time.monotonic() - start
        return json.loads((Path(folder) / "base" / "results.json").read_text())["num_tokens"] / seconds


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
