"""The plan's numbers against numbers worked out by hand, and what it says where something is unknown or wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from data_recipes.errors import UserError
from pipelines.experiment import SFTSection, load_experiment
from pipelines.memory_phases import Setup, phases, total
from pipelines.memory_plan import MemoryPlan, plan_sft
from pipelines.memory_trace import ModelShape, StepTrace, Tensors, _Bookkeeper, shape_of, shaped_model, trace_step

EMBEDDINGS, LAYER = 49152 * 576, 3 * 576 * 1536 + 2 * 576 * 576 + 2 * 192 * 576 + 2 * 576
SMOLLM2 = EMBEDDINGS + 30 * LAYER + 576  # the head is the embeddings
# r x (inputs + outputs) of q and o, k and v, the three of the MLP
LORA_8 = 30 * 8 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))


def shape_with(model: str, **section) -> ModelShape:
    with shaped_model(model, SFTSection(**section), "float32") as shaped:
        return shape_of(shaped)


def test_parameters_are_counted_exactly(model_folder):
    whole = shape_with(model_folder)
    assert whole.weights == whole.trainable == Tensors(SMOLLM2, 4 * SMOLLM2)
    assert (whole.layer.numel, whole.rest.numel, whole.largest.numel) == (LAYER, EMBEDDINGS + 576, EMBEDDINGS)
    lora = shape_with(model_folder, lora={"r": 8})
    assert lora.trainable == Tensors(LORA_8, 4 * LORA_8)
    assert lora.weights.numel == SMOLLM2 + LORA_8 and lora.rest_trainable.numel == 0
    assert shape_with(model_folder, lora={"r": 8, "target_modules": ["q_proj"]}).trainable.numel == 30 * 8 * 1152


def test_an_adapter_that_fits_no_layer_is_one_sentence(model_folder):
    with pytest.raises(UserError, match="sft.lora: .*nowhere.*mend target_modules"):
        shape_with(model_folder, lora={"target_modules": ["nowhere"]})


def test_allocations_are_booked_while_they_last():
    with FakeTensorMode():
        weight = torch.empty(10)
        with _Bookkeeper([weight]) as keeper:
            first = weight * 2  # 40 bytes
            view = first[:5]
            second = first + 1  # 40 more
            weight.mul_(3)  # in place: nothing
            del first
            assert [size for _, size in keeper.events] == [40, 40], "the view keeps the first"
            del view
            del second
    assert [size for _, size in keeper.events] == [40, 40, -40, -40]


def arguments(**changes) -> SimpleNamespace:
    given = {"gradient_checkpointing": False, "gradient_checkpointing_kwargs": None, "bf16": False, "fp16": False}
    return SimpleNamespace(**{**given, **changes})


def test_a_step_leaves_gradients_and_checkpointing_keeps_less(model_folder):
    traces = []
    for checkpointing in (False, True):
        with shaped_model(model_folder, SFTSection(lora={"r": 8}), "float32") as model:
            traces.append(trace_step(model, 2, 64, arguments(gradient_checkpointing=checkpointing), "cpu"))
    kept, recomputed = traces
    assert kept.gradients[-1] == recomputed.gradients[-1] == 4 * LORA_8
    assert kept.activations[-1] < 1e6, "all activations go"
    tokens = 2 * 64
    # a layer saves at the least the inputs of its matrices (5 of hidden size, 2 of the MLP's) and q, k, v in all heads
    least = 30 * tokens * 4 * (4 * 576 + 3 * 1536 + 3 * 576)
    assert least < kept.activations.max() < 4 * least
    assert recomputed.activations.max() < kept.activations.max() / 1.5


# a model of 1000 weights of 4 bytes, 600 of them trained; activations and gradients over three moments
SHAPE = ModelShape(
    weights=Tensors(1000, 4000),
    trainable=Tensors(600, 2400),
    layer=Tensors(200, 800),
    layer_trainable=Tensors(120, 480),
    rest=Tensors(400, 1600),
    rest_trainable=Tensors(0, 0),
    largest=Tensors(300, 1200),
    linear=Tensors(256, 1024),
)
ZEROS = np.zeros(3, int)
TRACE = StepTrace(np.array([0, 1000, 2400]), np.array([5000, 4500, 100]), ZEROS, ZEROS)  # large blocks alone
MOMENTS = 2 * 2400


def table(**setup) -> tuple[dict, Setup]:
    given = Setup(process_bytes=7, **setup)
    return phases(SHAPE, TRACE, given), given


def test_one_process_holds_everything_once():
    found, setup = table(file_bytes=2000)
    assert total(found["loading"], setup) == 7 + 4000 + 2000
    assert total(found["forward and backward"], setup) == 7 + 4000 + MOMENTS + 1000 + 4500
    assert total(found["optimiser step"], setup) == 7 + 4000 + MOMENTS + 2400
    found, _ = table(accumulates=True)
    assert (found["forward and backward"]["gradients"], found["forward and backward"]["activations"]) == (2400, 5000)
    assert table(optim="sgd")[0]["optimiser step"]["optimiser"] == 0
    assert table(optim="adamw_bnb_8bit")[0]["optimiser step"]["optimiser"] == 2 * 600
    assert table(optim="adamw_torch")[0]["optimiser step"]["optimiser"] == MOMENTS + 1200  # the largest
    assert table(quantized=True)[0]["optimiser step"]["weights"] == 4000 - 1024 + 128 + 16


def test_the_heap_stays_as_large_as_it_was():
    small = StepTrace(TRACE.gradients, TRACE.activations, np.array([0, 900, 2000]), np.array([2000, 600, 0]))
    setup = Setup()
    found = phases(SHAPE, small, setup)
    backward = found["forward and backward"]
    # large blocks over time: 3000, 4000, 500; small ones: 2000, 1500, 2000
    assert (backward["activations"], backward["gradients"], backward["allocator"]) == (4500, 1000, 500)
    assert found["optimiser step"]["allocator"] == 0 and found["saving"]["allocator"] == 2000
    assert "allocator" not in phases(SHAPE, small, Setup(device="cuda"))["saving"]


def test_ddp_adds_buckets_as_large_as_the_gradients():
    found, _ = table(strategy="ddp", world_size=2, heap_weights=30)
    assert found["forward and backward"]["communication"] == found["optimiser step"]["communication"] == 2400
    assert found["optimiser step"]["allocator"] == 30


def test_zero2_divides_optimiser_and_gradients():
    zero = {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 5e8}
    found, _ = table(strategy="zero2", world_size=2, zero=zero)
    masters, moments = 4 * 300, 2 * 4 * 300
    assert found["forward and backward"] == {
        "process": 7,
        "weights": 4000,
        "optimiser": masters + moments,
        "gradients": 0,
        "activations": 4500,
        "communication": 1000,  # of the bucket so far
        "allocator": 0,
    }
    assert found["reducing gradients"]["communication"] == 2400 + 2400
    assert found["optimiser step"]["gradients"] == 1200 + 1200
    assert found["saving"]["copy to save"] == 4 * 600 + 4000
    # on a GPU the buckets are there in full, two of them
    on_gpu, _ = table(strategy="zero2", world_size=2, zero=zero | {"reduce_bucket_size": 1000}, device="cuda")
    assert on_gpu["forward and backward"]["communication"] == 2 * 1000 * 4
    # smaller than the gradients: they are reduced, and summed in this process's part, while backward goes on
    small, _ = table(strategy="zero2", world_size=2, zero=zero | {"reduce_bucket_size": 100}, device="cuda")
    assert small["forward and backward"]["communication"] == 2 * 100 * 4 + 100 * 4
    assert small["forward and backward"]["gradients"] == 1200


def test_offloading_leaves_no_optimiser_on_the_gpu():
    zero = {"stage": 2, "reduce_bucket_size": 1000, "offload_optimizer": {"device": "cpu"}}
    found, setup = table(strategy="zero2_offload", world_size=2, zero=zero, device="cuda", narrow=True)
    step = found["optimiser step"]
    assert "optimiser" not in step
    # masters, two moments and gradients in float32, and the new weights in 16 bits
    assert step["offloaded"] == 300 * (4 + 8 + 4 + 2)
    assert total(step, setup) == 7 + 4000


def test_zero3_divides_the_weights_and_gathers_what_is_used_again():
    zero = {"stage": 3, "reduce_bucket_size": 600, "stage3_prefetch_bucket_size": 50}
    found, _ = table(strategy="zero3", world_size=2, zero=zero)
    step, backward = found["optimiser step"], found["forward and backward"]
    assert (step["weights"], step["optimiser"], step["gradients"]) == (2000, 3 * 4 * 300, 1200)
    assert backward["communication"] == 4000 + 1000, "all weights are within the reuse distance"
    near, _ = table(strategy="zero3", world_size=2, zero=zero | {"stage3_max_reuse_distance": 0})
    assert near["forward and backward"]["communication"] == 4 * (50 + 300) + 1000


def test_fsdp2_gathers_two_layers_and_what_is_outside():
    found, _ = table(strategy="fsdp2", world_size=4)
    step, backward = found["optimiser step"], found["forward and backward"]
    assert (step["weights"], step["optimiser"], step["gradients"]) == (1000, MOMENTS // 4, 600)
    assert backward["communication"] == 1600 + 2 * 800 + 2 * 480


SECTIONS = """
sft: {lora: {r: 8}, dtype: float32, per_device_train_batch_size: 4, gradient_accumulation_steps: 2, max_length: 40}
"""


@pytest.fixture
def planned(small_experiment, model_folder):
    def plan(*overrides: str, file=None) -> MemoryPlan:
        return plan_sft(load_experiment(file or small_experiment(SECTIONS), list(overrides)), process_bytes=0)

    return plan


def test_without_a_mixture_the_longest_rows_are_assumed(planned, tmp_path):
    from launch.plan import summary, verdict

    plan = planned("launch.num_processes=2")
    assert plan.run is None and plan.micro_batch == (4, 40) and plan.setup.world_size == 2
    lines = "\n".join(summary(plan))
    assert "unknown until the mixture is built" in lines and f"{LORA_8:,} train" in lines
    assert "16 sequences = 4 a process x 2 x 2 accumulated; 2 processes, ddp, CPU" in lines
    assert not (tmp_path / "run").exists(), "nothing is written"
    _, peak = plan.peak
    assert verdict(plan, peak).startswith("It fits") and verdict(plan, peak - 1).startswith("It does not fit")


def test_with_a_mixture_steps_and_tokens_are_counted(planned, small_experiment):
    from data_recipes.store import Mixture
    from pipelines.mix import mix

    file = small_experiment(SECTIONS)
    experiment = load_experiment(file)
    mix(experiment)
    mixture = Mixture(experiment.run_dir / "mixture")
    plan = planned("sft.max_length=200", file=file)
    assert plan.run is not None
    assert (plan.run.steps, plan.run.rows) == (30, 240), "three epochs, as TRL says unless told"
    assert plan.run.tokens == 3 * mixture.lengths.sum()
    assert plan.run.trained_tokens == 3 * (mixture.lengths - mixture.targets).sum()
    assert plan.micro_batch == (4, mixture.lengths.max())


def test_a_batch_that_cannot_be_divided_is_one_sentence(planned):
    with pytest.raises(UserError, match="sft.batch_size: 9 "):
        planned("sft={batch_size: 9}", "launch.num_processes=2")


def test_a_file_without_sft_is_one_sentence(small_experiment):
    with pytest.raises(UserError, match="no sft section to plan; add one"):
        plan_sft(load_experiment(small_experiment("eval: {}\n")))
