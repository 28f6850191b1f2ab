"""`python -m tests.benchmarks.extraction`: MMLU-Pro's letters, read by us and by the official patterns as they stand.

All outputs of 8 models are read and scored by us; of each file a random sample is read by both, in turn, part after
part, with a bound on the time of the slower. Needs WHETSTONE_DATA.
"""

import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PARTS = 5


def verbatim(text: str, last: bool = False) -> str | None:
    """Return the letter that the three patterns of `extract_answer` find, as they are published."""
    for pattern, flags in (
        (r"answer is \(?([A-J])\)?", 0),
        (r".*[aA]nswer:\s*([A-J])", 0),
        (r"\b[A-J]\b(?!.*\b[A-J]\b)", re.DOTALL),
    ):
        found = re.findall(pattern, text, flags)[-1:] if last else re.search(pattern, text, flags)
        if found:
            return found[0] if last else found[found.re.groups]
    return None


@dataclass(frozen=True)
class Measured:
    """What reading a sample took, in seconds of processor time."""

    mean_length: float
    """Characters an output, over the whole file."""
    sampled: int
    theirs: float
    ours: float
    same: bool
    """Both read the same letter from every output of the sample."""

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.theirs / self.ours


def in_turn(texts: Sequence[str], sample: int = 500, budget: float = 20, seed: int = 0) -> Measured:
    """Read a random sample of `texts` with the official patterns and with ours, part after part.

    Args:
        budget: seconds after which the official patterns get no further part.
    """
    from eval.verifiers.mmlu_pro import EXTRACTIONS

    ours = EXTRACTIONS["L3"]
    chosen = random.Random(seed).sample(range(len(texts)), min(sample, len(texts)))
    seconds = {"theirs": 0.0, "ours": 0.0}
    sampled, same = 0, True
    for part in (chosen[number::PARTS] for number in range(PARTS)):
        if seconds["theirs"] > budget:
            break
        start = time.process_time()
        wanted = [verbatim(texts[number]) for number in part]
        between = time.process_time()
        found = [ours(texts[number], None) for number in part]
        end = time.process_time()
        seconds["theirs"] += between - start
        seconds["ours"] += end - between
        same &= found == wanted
        sampled += len(part)
    return Measured(sum(map(len, texts)) / len(texts), sampled, **seconds, same=same)


def main() -> None:
    """Measure and print."""
    from eval.benchmarks.mmlu_pro import Settings, items
    from eval.importers.mmlu_pro import official_figures, read_outputs

    rows = [item.row for item in items(Settings(type="mmlu_pro", num_shots=0), None)]
    print(
        f"{'file':28} {'outputs':>7} {'characters':>10} | {'read':>6} {'scored':>6} | {'sample':>6} {'theirs':>8}"
        f" {'ours':>8} {'ratio':>6} letters"
    )
    whole = 0.0
    for path in sorted(Path(os.environ["WHETSTONE_DATA"]).glob("mmlu_pro/outputs/*.jsonl.gz")):
        start = time.perf_counter()
        outputs, _ = read_outputs(path, rows)
        between = time.perf_counter()
        official_figures(outputs)
        end = time.perf_counter()
        whole += end - start
        one = in_turn([output.completion for output in outputs])
        print(
            f"{path.name.removesuffix('.jsonl.gz'):28} {len(outputs):7} {one.mean_length:10.0f} |"
            f" {between - start:5.1f}s {end - between:5.2f}s | {one.sampled:6} {one.theirs:7.2f}s {one.ours:7.4f}s"
            f" {one.ratio:5.0f}x {'identical' if one.same else 'DIFFERENT'}"
        )
    print(f"all files read, extracted and scored in {whole:.1f} s")


if __name__ == "__main__":
    main()
