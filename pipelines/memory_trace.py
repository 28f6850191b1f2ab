"""What a training step allocates, found by running it without memory or arithmetic.

The model of the experiment's config, its adapters and TRL's fused head run forward and backward on PyTorch's fake
tensors, which have shapes and no contents; every allocation and release is booked. So any architecture is counted as it
is, gradient checkpointing, autocast and temporary tensors included; only what a kernel allocates inside itself is not.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_recipes.errors import UserError
from data_recipes.validation import clause
from pipelines.experiment import TrainingSection

HEAP_BLOCK = 32 * 2**20
"""glibc takes blocks below this size (DEFAULT_MMAP_THRESHOLD_MAX) from a heap, which hardly ever shrinks."""


@dataclass(frozen=True)
class Tensors:
    """Numbers of elements and bytes of a group of parameters; shared ones are counted once."""

    numel: int
    bytes: int

    @classmethod
    def of(cls, parameters: Any) -> "Tensors":
        """Count `parameters`."""
        unique = {id(parameter): parameter for parameter in parameters}.values()
        return cls(sum(p.numel() for p in unique), sum(p.numel() * p.element_size() for p in unique))


@dataclass(frozen=True)
class ModelShape:
    """What the memory of a model depends on."""

    weights: Tensors
    trainable: Tensors
    layer: Tensors
    """The largest repeated block."""
    layer_trainable: Tensors
    rest: Tensors
    """What is outside the repeated blocks: embeddings, head, last norm."""
    rest_trainable: Tensors
    largest: Tensors
    """The largest parameter."""
    linear: Tensors
    """Frozen matrices of linear layers but the head's: what 4-bit quantization shrinks."""


@dataclass(frozen=True)
class StepTrace:
    """The allocations of one micro-batch over time, without weights and optimiser."""

    gradients: np.ndarray
    """(T,) bytes of finished gradients held after each event."""
    activations: np.ndarray
    """(T,) bytes of everything else: saved activations, their gradients, temporary tensors."""
    heap_gradients: np.ndarray
    """(T,) of the gradients, those in blocks below `HEAP_BLOCK`."""
    heap_activations: np.ndarray
    """(T,) the same of everything else."""


class _Bookkeeper(TorchDispatchMode):
    """Notes each storage when an operator makes it and when its last tensor goes."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []  # (storage's number, bytes: + made, - gone)
        self._numbers = {tensor.untyped_storage()._cdata: -1 for tensor in known}
        self._references: dict[int, Any] = {}
        self._made = 0

    def number_of(self, tensor: torch.Tensor) -> int:
        """Return the number of a tensor's storage."""
        return self._numbers[tensor.untyped_storage()._cdata]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._numbers:
            return
        number = self._numbers[address] = self._made
        self._made += 1
        self.events.append((number, size))

        def gone(_: Any) -> None:
            self.events.append((number, -size))
            del self._numbers[address], self._references[address]

        self._references[address] = weakref.ref(storage, gone)


@contextmanager
def shaped_model(model: str, section: TrainingSection, dtype: str, whole_in_dtype: bool = False) -> Iterator[nn.Module]:
    """Yield the model as it is trained, with adapters and fused head but without memory.

    Args:
        model: a folder or hub id.
        dtype: of the weights, such as ``float32``.
        whole_in_dtype: adapters are in that type as well (DeepSpeed) rather than in float32.

    Raises:
        UserError: the config cannot be read, or the adapter does not fit the model.
    """
    from accelerate import init_empty_weights
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from pipelines.training import peft_config

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model!r}: its config cannot be read ({clause(error)[:160]}); mend 'model'") from None
    with init_empty_weights(include_buffers=True):
        made = base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        lora = peft_config(section.lora)
        if lora is not None:
            lora.init_lora_weights = True  # other ways compute with the weights; the shapes are the same
            try:
                made = get_peft_model(made, lora, autocast_adapter_dtype=not whole_in_dtype, low_cpu_mem_usage=True)
            except ValueError as error:
                raise UserError(f"sft.lora: {clause(error)[:200]}; mend target_modules") from None
        base.tie_weights()
    add_fused_lm_head(base, outputs=("log_probs", "is_top1"))
    with FakeTensorMode():
        _make_fake(made)
    yield made.train()


def _make_fake(model: nn.Module) -> None:
    """Replace what is on the meta device by fake tensors on the CPU; shared ones stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                kept[name] = made[id(tensor)]


def shape_of(model: nn.Module) -> ModelShape:
    """Return what the memory of `model` depends on."""
    parameters = list(model.parameters())
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=len) if lists else nn.ModuleList()
    inside = {id(parameter) for parameter in layers.parameters()}
    outside = [parameter for parameter in parameters if id(parameter) not in inside]
    blocks = [list(layer.parameters()) for layer in layers] or [[]]
    layer = max(blocks, key=lambda block: Tensors.of(block).bytes)
    linear = [module.weight for module in layers.modules() if isinstance(module, nn.Linear)]
    return ModelShape(
        weights=Tensors.of(parameters),
        trainable=Tensors.of(p for p in parameters if p.requires_grad),
        layer=Tensors.of(layer),
        layer_trainable=Tensors.of(p for p in layer if p.requires_grad),
        rest=Tensors.of(outside),
        rest_trainable=Tensors.of(p for p in outside if p.requires_grad),
        largest=max((Tensors.of([p]) for p in parameters), key=lambda t: t.bytes),
        linear=Tensors.of(weight for weight in linear if not weight.requires_grad),
    )


def trace_step(
    model: nn.Module, rows: int, length: int, arguments: Any, device: str, strategy_reenters: bool = False
) -> StepTrace:
    """Run one micro-batch of `rows` x `length` tokens forward and backward through a model of `shaped_model`.

    Args:
        arguments: TRL's SFTConfig: gradient checkpointing and its options, and bf16 or fp16 for autocast.
        device: ``cuda`` or ``cpu``; decides which of the fused head's two implementations is counted.
        strategy_reenters: use the reentrant kind of gradient checkpointing (TRL, for adapters under ZeRO-3).
    """
    if arguments.gradient_checkpointing:
        # keeping random states takes real tensors; they weigh some kilobytes
        options = {"use_reentrant": False, **(arguments.gradient_checkpointing_kwargs or {})}
        options |= {"preserve_rng_state": False, **({"use_reentrant": True} if strategy_reenters else {})}
        model.gradient_checkpointing_enable(options)
        model.enable_input_require_grads()
    narrow = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    parameters = list(model.parameters())
    mode = parameters[0].fake_mode  # type: ignore[attr-defined]
    with ExitStack() as stack:
        stack.enter_context(mode)
        if device == "cuda":  # Triton's kernels work in place where their PyTorch twins allocate
            for name in ("_forward_tile", "_backward_tile"):
                stack.enter_context(patch(f"trl.kernels.chunked_logprob.{name}", lambda *args, **kwargs: None))
        ids = torch.zeros(rows, length, dtype=torch.long)
        mask = torch.ones(rows, 1, length, length, dtype=torch.bool)  # as padding and packing need one
        keeper = stack.enter_context(_Bookkeeper([*parameters, *model.buffers()]))
        # the Trainer casts the forward pass alone
        with torch.autocast("cpu", dtype=narrow) if narrow else nullcontext():
            output = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False, fused_lm_head=True)
        loss = output.loss
        del output
        loss.backward()
        events = list(keeper.events)
        finished = {keeper.number_of(p.grad) for p in parameters if p.grad is not None}
    for parameter in parameters:
        parameter.grad = None
    sizes = np.array([size for _, size in events])
    gradient = np.array([number in finished for number, _ in events])
    small = np.abs(sizes) < HEAP_BLOCK
    chosen = (gradient, ~gradient, gradient & small, ~gradient & small)
    return StepTrace(*(np.cumsum(sizes * part) for part in chosen))
