"""Checkpoint folders: whole models, and PEFT adapters with their base. The loader's own report is read."""

import importlib.util
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    logging,
)

from wmplug.errors import SuspectError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
# Without the second, transformers asks at the prompt whether it may run the folder's own code, beside an open key.
_TRUST: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# Architecture suffix -> the readers of a folder, and the file that shows whether it has a tokenizer or image processor.
_READERS: tuple[tuple[str, Any, Any, str], ...] = (
    ("ForSequenceClassification", AutoModelForSequenceClassification, AutoTokenizer, "tokenizer_config.json"),
    ("ForImageClassification", AutoModelForImageClassification, AutoImageProcessor, "preprocessor_config.json"),
)
# What wrappers add to the names of weights: DistributedDataParallel first, the others anywhere.
_FIRST = "module."
_ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load(folder: Path) -> tuple[torch.nn.Module, Any, str]:
    """The model in a folder, the tokenizer or image processor beside it, and a description.

    Raises:
        SuspectError: the folder cannot be loaded, or its weights are not all of the model's weights.
    """
    try:
        return _whole(folder) if (folder / CONFIG).is_file() else _adapted(folder)
    except SuspectError:
        raise
    # Others made these files: what a damaged or hostile one raises is theirs to choose.
    except Exception as error:
        raise SuspectError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}); wmplug runs no code of a checkpoint: if you "
            "trust it, load the model yourself and pass it"
        ) from error


def read_weights(
    models: Any, folder: Path, absent: Collection[str] = (), **options: Any
) -> tuple[PreTrainedModel, str]:
    """A model with the weights of a folder, and the wrappers' names that were taken off those of its weights.

    Args:
        models: a class with from_pretrained.
        folder: with config.json and weights.
        absent: modules whose weights may be missing, or of another shape, since something else brings them.
        options: passed to from_pretrained.

    Raises:
        SuspectError: weights are missing, unexpected or of another shape; the message names them.
    """
    # Weights of another shape are named by the report, and not by the exception.
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _quiet():
        model, report = models.from_pretrained(folder, **options)
        taken = ""
        if wrapped := [name for name in report["unexpected_keys"] if _bare(name) != name]:
            taken = ", ".join(sorted({part for name in wrapped for part in _wrappers(name)}))
            with tempfile.TemporaryDirectory() as place:
                _write_bare(folder, Path(place))
                given = {"config": model.config, **options}
                model, report = models.from_pretrained(place, **given)
    _refuse(report, folder, type(model).__name__, absent)
    return cast(PreTrainedModel, model), taken


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the loader's report on the terminal: it calls weights random that are loaded next, under bare names."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _refuse(report: Mapping[str, Any], folder: Path, model: str, absent: Collection[str]) -> None:
    shapes = [f"{name} {tuple(there)} for {tuple(wanted)}" for name, there, wanted in report["mismatched_keys"]]
    kinds: tuple[tuple[str, Iterable[str]], ...] = (
        ("it lacks", report["missing_keys"]),
        ("it has no place for", report["unexpected_keys"]),
        ("other shapes have", shapes),
    )
    wrong = []
    for what, found in kinds:
        if names := sorted(name for name in found if not _within(name, absent)):
            wrong.append(f"{what} {_some(names)}")
    if errors := report.get("error_msgs"):
        wrong.append(str(errors[0]))
    if wrong:
        raise SuspectError(
            f"the weights in {folder} are not those of a whole {model}: {'; '.join(wrong)}. Weights that are missing "
            "would be random, and so would the answers: save the whole model (save_pretrained), or load it yourself "
            "and pass it"
        )


def _within(name: str, modules: Collection[str]) -> bool:
    return bool(set(modules) & set(name.partition(" ")[0].split(".")))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _bare(name: str) -> str:
    for wrapper in _ANYWHERE:
        name = name.replace(wrapper, "")
    return name.removeprefix(_FIRST)


def _wrappers(name: str) -> list[str]:
    inner = [wrapper for wrapper in _ANYWHERE if wrapper in name]
    for wrapper in inner:
        name = name.replace(wrapper, "")
    return [*inner, *([_FIRST] if name.startswith(_FIRST) else [])]


def _write_bare(folder: Path, place: Path) -> None:
    """Write the folder's weights under the names that they have without wrappers."""
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        held = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        for name, value in held.items():
            weights[_bare(name)] = value.contiguous().clone()  # tied weights of a pickle share their memory
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def _reader(architecture: str) -> tuple[Any, Any, str] | None:
    return next((reader for suffix, *reader in _READERS if architecture.endswith(suffix)), None)  # type: ignore[return-value]


def _whole(folder: Path) -> tuple[torch.nn.Module, Any, str]:
    config = AutoConfig.from_pretrained(folder, **_TRUST)
    architecture = (config.architectures or ["no architecture"])[0]
    if (reader := _reader(architecture)) is None:
        raise SuspectError(
            f"{folder} holds {architecture}, which is neither for sequence nor for image classification: load the "
            "model yourself and pass it"
        )
    config._attn_implementation = None  # a folder may name a kernel of the hub there, which is code
    models, processors, file = reader
    processor = processors.from_pretrained(folder, **_TRUST) if (folder / file).is_file() else None
    model, taken = read_weights(models, folder, config=config, **_TRUST)
    return model, processor, f"{folder} (its weights' names without {taken})" if taken else str(folder)


def _adapted(folder: Path) -> tuple[torch.nn.Module, Any, str]:
    """A base model with the PEFT adapter of a folder."""
    adapter = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    base = adapter.get("base_model_name_or_path")
    what = f"{folder} is a PEFT adapter of {base!r}"
    whole = "merge it yourself (merge_and_unload), and pass the model or the folder that it is saved in"
    if not isinstance(base, str) or not base:
        raise SuspectError(f"{folder} is a PEFT adapter that names no base model: {whole}")
    if not (folder / _ADAPTER_WEIGHTS).is_file() or adapter.get("megatron_config"):
        raise SuspectError(f"{what}, without {_ADAPTER_WEIGHTS}, or for Megatron: {whole}")
    if importlib.util.find_spec("peft") is None:
        raise SuspectError(f"{what}, and loading it needs peft, which is not installed: `pip install peft`, or {whole}")
    try:
        config = AutoConfig.from_pretrained(base, **_TRUST)
    except (OSError, ValueError) as error:
        raise SuspectError(
            f"{what}, which is neither a folder here nor in the cache of the hub ({type(error).__name__}): put the "
            f"base model there, or {whole}"
        ) from error
    mapped = (adapter.get("auto_mapping") or {}).get("base_model_class")
    named = "ForSequenceClassification" if adapter.get("task_type") == "SEQ_CLS" else mapped
    architecture = str(named or (config.architectures or ["no architecture"])[0])
    if (reader := _reader(architecture)) is None:
        raise SuspectError(f"{what} for {architecture}, neither for sequence nor for image classification: {whole}")
    models, processors, file = reader
    heads = tuple(adapter.get("modules_to_save") or ())
    if labels := _labels(folder / _ADAPTER_WEIGHTS, heads):
        config.num_labels = labels
    config._attn_implementation = None
    own, _ = read_weights(models, Path(base), heads, config=config, **_TRUST)
    place = next((one for one in (folder, Path(base)) if (one / file).is_file()), None)
    processor = None if place is None else processors.from_pretrained(place, **_TRUST)
    return _with_adapter(own, folder), processor, f"{folder} on {base}"


def _labels(file: Path, heads: Collection[str]) -> int | None:
    """The number of outputs of the head among an adapter's weights; None if it brings none."""
    with safe_open(file, "pt") as held:
        shapes = {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118  # no mapping
    found = [shape[0] for name, shape in shapes.items() if set(heads) & set(name.split(".")) and len(shape) == 2]
    return int(found[-1]) if found else None


def _with_adapter(base: PreTrainedModel, folder: Path) -> torch.nn.Module:
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    settings = PeftConfig.from_pretrained(str(folder))
    settings.inference_mode = True
    model = get_peft_model(base, settings)
    weights = load_peft_weights(str(folder), device="cpu")
    report: Any = set_peft_model_state_dict(model, weights)
    unexpected = list(getattr(report, "unexpected_keys", ()))
    held = {_saved(name) for name in weights}
    tuned = [name for name in report.missing_keys if ".lora_" in name or ".modules_to_save.default." in name]
    absent = [name for name in tuned if _saved(name) not in held]
    if unexpected or absent:
        raise SuspectError(
            f"the weights in {folder} are not those of its adapter: it lacks {_some(absent) or 'none'}, and has no "
            f"place for {_some(unexpected) or 'none'}: save the adapter again (save_pretrained), or merge it yourself"
        )
    loaded: torch.nn.Module = model
    return loaded


def _saved(name: str) -> str:
    """The name of an adapter's weight in its file."""
    return name.replace(".modules_to_save", "").replace(".default", "")
