"""Several models and adapters asked in turn by one engine."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_recipes.files import read_json
from eval.engines import Engine, EngineSettings, open_engine
from eval.models import check_adapter, resolve_model

HARMLESS = {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "use_cache"}
"""Keys of a model's config.json that do not change its architecture."""


def one_engine(settings: EngineSettings, adapters: list[str]) -> Callable[[str, str | None], Engine]:
    """Return a function (model, adapter) that opens one engine at the first call and swaps weights in at later ones.

    Only a model of another architecture takes a new engine.

    Args:
        adapters: all that will be asked for.
    """
    ranks = [check_adapter(adapter, "the model") for adapter in adapters] if settings.type != "openai" else []
    running: dict[str, Any] = {}

    def engine_for(model: str, adapter: str | None) -> Engine:
        if settings.type != "openai":
            model = resolve_model(model)
            adapter = adapter and str(Path(adapter).expanduser())
        wanted = (model, adapter)
        if running and settings.type != "openai" and _architecture(model) != _architecture(running["weights"][0]):
            running.clear()
            gc.collect()
        if not running:
            running["engine"] = open_engine(settings, model, adapter, ranks)
        elif running["weights"] != wanted:
            running["engine"].load_weights(*wanted)
        running["weights"] = wanted
        return running["engine"]

    return engine_for


def _architecture(model: str) -> dict[str, Any]:
    """Return what of a model's configuration decides whether weights fit."""
    path = Path(model) / "config.json"
    if path.exists():
        config = read_json(path)
    else:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model).to_dict()
    return {key: value for key, value in config.items() if key not in HARMLESS}
