"""The memory of one process by phase and part: what each strategy adds to a step and divides among processes.

As PyTorch's DDP and FSDP2 and DeepSpeed's ZeRO (1910.02054, section 5) do it. No constant is fitted; what is left out
is named in docs/plan.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.memory_trace import ModelShape, StepTrace

PARTS = (
    *("process", "weights", "gradients", "optimiser", "activations", "communication", "allocator"),
    *("offloaded", "mapped file", "copy to save"),
)
CPU_PARTS = ("offloaded", "mapped file", "copy to save")
"""In CPU memory even where training runs on a GPU."""
Phase = dict[str, int]
"""Part -> bytes of one process. ``allocator``: freed, but not given back to the system (CPU)."""

IN_HEAP = "in heap"
"""Of activations and gradients in a phase, what lies in small blocks; used between the functions here."""

BROADCAST = 250 * 2**20
"""Bytes that DDP sends at once when it makes the processes' weights equal."""


@dataclass(frozen=True)
class Setup:
    """How the memory is shared and what it is counted for."""

    strategy: str = "single"
    world_size: int = 1
    device: str = "cpu"
    narrow: bool = False
    """Weights and computation in 16 bits: ZeRO then keeps float32 masters."""
    accumulates: bool = False
    """Several micro-batches make a step: gradients are there while the next one runs."""
    optim: str = "adamw_torch_fused"
    zero: dict[str, Any] = field(default_factory=dict)
    """``zero_optimization`` of the DeepSpeed config."""
    hidden_size: int = 0
    process_bytes: int = 0
    file_bytes: int = 0
    """Of the checkpoint, which loading maps into memory."""
    heap_weights: int = 0
    """Bytes of weights in blocks below `memory_trace.HEAP_BLOCK`."""
    heap_trainable: int = 0
    """Of these, the trainable ones'."""
    quantized: bool = False


def total(phase: Phase, setup: Setup) -> int:
    """Return the bytes of a phase in the memory where training runs."""
    return sum(size for part, size in phase.items() if setup.device == "cpu" or part not in CPU_PARTS)


def phases(shape: ModelShape, trace: StepTrace, setup: Setup) -> dict[str, Phase]:
    """Return the memory of one process by phase and part.

    Args:
        shape: of the model.
        trace: of the largest micro-batch.
        setup: how the work is shared.
    """
    strategies: dict[str, Callable[[ModelShape, StepTrace, Setup], tuple[dict[str, Phase], int]]] = {
        "single": _whole_copies,
        "ddp": _whole_copies,
        "fsdp2": _fsdp2,
    }
    stage = setup.zero.get("stage")
    share = _zero3 if stage == 3 else _zero_1_and_2 if stage else strategies[setup.strategy]
    found, heap = share(shape, trace, setup)
    found["saving"] = _saving(shape, setup, found["optimiser step"])
    kept = 0
    if setup.strategy != "single":
        # Weights are loaded by threads and copied once: by Accelerate to cpu:RANK, by ZeRO-1 and -2 the trainable ones
        # to a flat buffer. What is then freed lies in the heaps of those threads until others load again.
        kept = setup.heap_trainable if stage in (1, 2) else setup.heap_weights
    for name, phase in found.items():
        in_use = phase.pop(IN_HEAP, 0)
        if name != "loading" and setup.device == "cpu":
            free = max(0, heap - in_use)  # what the heap once held is still its own
            phase["allocator"] = free + (kept if name != "saving" else 0)
    return {name: {"process": setup.process_bytes, **phase} for name, phase in found.items()}


def _saving(shape: ModelShape, setup: Setup, last: Phase) -> Phase:
    """At the end process 0 gathers what was trained and merges it into a copy of the model that it loads anew."""
    trained = 4 * shape.trainable.numel if setup.zero else shape.trainable.bytes  # ZeRO's float32 masters
    kept = {part: last[part] for part in ("weights", "optimiser", "communication", "offloaded") if part in last}
    if setup.zero.get("stage") == 3 and "gradients" in last:  # a buffer, which stays
        kept["gradients"] = -(-shape.trainable.bytes // setup.world_size)
    copies = {"copy to save": trained + shape.weights.bytes, IN_HEAP: setup.heap_trainable}
    return {**kept, "mapped file": setup.file_bytes, **copies}


def _weights(shape: ModelShape, setup: Setup) -> int:
    if not setup.quantized:
        return shape.weights.bytes
    # bitsandbytes: 4 bits an element, a float32 scale for every 64
    return shape.weights.bytes - shape.linear.bytes + shape.linear.numel // 2 + shape.linear.numel // 64 * 4


def _moments(setup: Setup, numel: int, size: int) -> int:
    """Bytes of optimiser state for `numel` elements of `size` bytes each; moments have their parameter's type."""
    if "8bit" in setup.optim:
        return 2 * numel
    copies = {"sgd": 0, "adagrad": 1, "rmsprop": 1, "lion_32bit": 1, "adafactor": 0}.get(setup.optim, 2)
    return copies * numel * size


def _scratch(setup: Setup, whole: int, largest: int) -> int:
    """Temporary tensors of an optimiser step: none in one kernel, else of all parameters on a GPU (foreach) and of one
    at a time on a CPU."""
    if "fused" in setup.optim or "8bit" in setup.optim:
        return 0
    return whole if setup.device == "cuda" else min(largest, whole)


@dataclass(frozen=True)
class _Peak:
    """Activations and gradients when they are most together; of these what is in small blocks, and the most of that."""

    activations: int
    gradients: int
    in_heap: int
    heap: int


def _peak(trace: StepTrace, setup: Setup, gradients: np.ndarray, heap_gradients: np.ndarray | int = 0) -> _Peak:
    together, in_heap = trace.activations + gradients, trace.heap_activations + heap_gradients
    # on a CPU the heap stays as large as it ever was, and what counts is when the large blocks are most
    large = together - in_heap if setup.device == "cpu" else together
    moment = int(np.argmax(np.where(large == large.max(), together, -1)))
    return _Peak(int(trace.activations[moment]), int(gradients[moment]), int(in_heap[moment]), int(in_heap.max()))


def _own_gradients(trace: StepTrace, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients over time, and those in small blocks, where each parameter keeps its own until the step."""
    if not setup.accumulates:
        return trace.gradients, trace.heap_gradients
    return (np.full_like(one, one[-1]) for one in (trace.gradients, trace.heap_gradients))  # type: ignore[return-value]


def _whole_copies(shape: ModelShape, trace: StepTrace, setup: Setup) -> tuple[dict[str, Phase], int]:
    weights, gradients = _weights(shape, setup), shape.trainable.bytes
    moments = _moments(setup, shape.trainable.numel, gradients // max(1, shape.trainable.numel))
    peak = _peak(trace, setup, *_own_gradients(trace, setup))
    # DDP copies gradients into buckets as large as all of them
    buckets = {"communication": gradients} if setup.strategy == "ddp" else {}
    scratch = _scratch(setup, moments // 2, shape.largest.bytes)
    sending = {"communication": min(BROADCAST, weights)} if setup.strategy == "ddp" else {}
    fixed = {"weights": weights, "optimiser": moments, **buckets}
    step = {"optimiser": moments + scratch, "gradients": gradients, IN_HEAP: int(trace.heap_gradients[-1])}
    return {
        "loading": {"weights": weights, "mapped file": setup.file_bytes, **sending},
        "forward and backward": {**fixed, **_of_peak(peak)},
        "optimiser step": {**fixed, **step},
    }, peak.heap


def _of_peak(peak: _Peak) -> Phase:
    return {"gradients": peak.gradients, "activations": peak.activations, IN_HEAP: peak.in_heap}


def _bucket_numel(setup: Setup, key: str, default: float, automatic: float) -> int:
    value = setup.zero.get(key, default)
    return int(automatic if value == "auto" else float(value))


def _buckets(shape: ModelShape, setup: Setup) -> tuple[int, int, bool]:
    """Return bytes of ZeRO's gradient buckets and of the copy that reduces one, and whether one bucket holds all."""
    size = _bucket_numel(setup, "reduce_bucket_size", 5e8, setup.hidden_size**2)
    width = shape.trainable.bytes // max(1, shape.trainable.numel)
    number = 2 if setup.zero.get("overlap_comm") and setup.zero["stage"] < 3 else 1
    numel = size * number
    if setup.device == "cpu":  # memory that is never written is never given
        numel = min(numel, shape.trainable.numel)
    return numel * width, min(size, shape.trainable.numel) * width, size >= shape.trainable.numel


def _zero_optimiser(shape: ModelShape, setup: Setup) -> Phase:
    """This process's part of masters (in float32 runs, too) and moments, offloaded where the config says so."""
    part = -(-shape.trainable.numel // setup.world_size)
    size = 4 * part + _moments(setup, part, 4)
    place = "offloaded" if _offloads(setup, "optimizer") else "optimiser"
    return {place: size}


def _offloads(setup: Setup, part: str) -> bool:
    return (setup.zero.get(f"offload_{part}") or {}).get("device", "none") != "none"


def _zero_1_and_2(shape: ModelShape, trace: StepTrace, setup: Setup) -> tuple[dict[str, Phase], int]:
    gradients, weights = shape.trainable.bytes, _weights(shape, setup)
    numel = -(-shape.trainable.numel // setup.world_size)  # of this process's part
    part = 0 if _offloads(setup, "optimizer") else -(-gradients // setup.world_size)
    optimiser = _zero_optimiser(shape, setup)
    buckets, copy, at_once = _buckets(shape, setup)
    fixed = {"weights": weights, **optimiser}
    # the step flattens the part, in float32, while its pieces are still there
    flat = part + (4 * numel if setup.narrow and part else 0)
    if not part:  # float32 gradients, and where the updated weights wait in their own type
        fixed["offloaded"] += 4 * numel + (2 if setup.narrow else 4) * numel
    if setup.zero["stage"] == 1:  # gradients stay whole until the step
        peak = _peak(trace, setup, *_own_gradients(trace, setup))
        backward = {**_of_peak(peak), "communication": 0 if at_once else buckets + copy}
        whole, in_heap = gradients, int(trace.heap_gradients[-1])
    else:  # a gradient moves into the bucket as soon as it is there
        peak, filled = _bucket_peak(trace, setup, buckets)
        # summed in this process's part while the next micro-batch runs, or while buckets follow one another
        summed = part if setup.accumulates or not at_once else 0
        backward = {**_of_peak(peak), "gradients": summed, "communication": filled + (0 if at_once else copy)}
        whole, in_heap = 0, 0
    reducing = {"gradients": whole + part, "communication": buckets + copy, IN_HEAP: in_heap}
    return {
        "loading": {"weights": weights + gradients, "mapped file": setup.file_bytes},  # the flat copy
        "forward and backward": {**fixed, **backward},
        "reducing gradients": {**fixed, **reducing},
        "optimiser step": {**fixed, "gradients": (whole or part) + flat, IN_HEAP: in_heap},
    }, peak.heap


def _bucket_peak(trace: StepTrace, setup: Setup, buckets: int) -> tuple[_Peak, int]:
    """Return the peak where gradients lie in buckets, and how much of the buckets is there then."""
    if setup.device == "cuda":
        return _peak(trace, setup, np.zeros_like(trace.gradients)), buckets
    peak = _peak(trace, setup, np.minimum(trace.gradients, buckets))
    return peak, peak.gradients


def _zero3(shape: ModelShape, trace: StepTrace, setup: Setup) -> tuple[dict[str, Phase], int]:
    weights, numel = _weights(shape, setup), -(-shape.trainable.numel // setup.world_size)
    own_weights, own_gradients = -(-weights // setup.world_size), -(-shape.trainable.bytes // setup.world_size)
    fixed = {"weights": own_weights, "gradients": own_gradients, **_zero_optimiser(shape, setup)}
    for part, offloaded in (("weights", "param"), ("gradients", "optimizer")):
        if _offloads(setup, offloaded):
            fixed["offloaded"] = fixed.get("offloaded", 0) + fixed.pop(part)
    share = _gathered_numel(shape, setup) / max(1, shape.weights.numel)
    gathered, in_heap = int(share * weights), int(share * setup.heap_weights)
    buckets, copy, at_once = _buckets(shape, setup)
    peak, filled = _bucket_peak(trace, setup, buckets)
    backward = {"activations": peak.activations, IN_HEAP: peak.in_heap + in_heap}
    step = {"communication": buckets}
    if setup.narrow and "gradients" in fixed:
        step["gradients"] = own_gradients + 4 * numel
    return {
        "loading": {"weights": weights, "mapped file": setup.file_bytes},
        "forward and backward": {
            **fixed,
            **backward,
            "communication": gathered + filled + (0 if at_once else copy),
        },
        "reducing gradients": {**fixed, "communication": buckets + copy},
        "optimiser step": {**fixed, **step},
    }, peak.heap + in_heap


def _gathered_numel(shape: ModelShape, setup: Setup) -> int:
    """Elements of weights that ZeRO-3 has whole where forward turns into backward: what is used again soon stays."""
    live = _bucket_numel(setup, "stage3_max_live_parameters", 1e9, 1e9)
    reuse = _bucket_numel(setup, "stage3_max_reuse_distance", 1e9, 1e9)
    ahead = _bucket_numel(setup, "stage3_prefetch_bucket_size", 5e7, 0.9 * setup.hidden_size**2)
    at_least = max(shape.layer.numel, shape.largest.numel)
    return min(shape.weights.numel, max(live, at_least), reuse + ahead + at_least)


def _fsdp2(shape: ModelShape, trace: StepTrace, setup: Setup) -> tuple[dict[str, Phase], int]:
    n = setup.world_size
    weights, gradients = -(-shape.weights.bytes // n), -(-shape.trainable.bytes // n)
    moments = _moments(setup, shape.trainable.numel, shape.trainable.bytes // max(1, shape.trainable.numel)) // n
    # whole: what is outside the layers, the layer at work and the one fetched ahead
    gathered = shape.rest.bytes + 2 * shape.layer.bytes
    layer = shape.layer_trainable.bytes
    # whole gradients of the same, and the buffer from which the largest group is scattered
    whole = shape.rest_trainable.bytes + layer + max(layer, shape.rest_trainable.bytes)
    peak = _peak(trace, setup, np.zeros_like(trace.gradients))
    fixed = {"weights": weights, "optimiser": moments, "gradients": gradients}
    scratch = _scratch(setup, moments // 2, shape.largest.bytes // n)
    return {
        "loading": {"weights": shape.weights.bytes, "mapped file": setup.file_bytes},
        "forward and backward": {
            **fixed,
            "activations": peak.activations,
            "communication": gathered + whole,
            IN_HEAP: peak.in_heap,
        },
        "optimiser step": {**fixed, "optimiser": moments + scratch},
    }, peak.heap
