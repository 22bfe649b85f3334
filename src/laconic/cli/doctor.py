"""`laconic doctor`: is everything that laconic needs installed, and does it work together?"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from laconic.cli import common
from laconic.cli.installed import EXTRAS, Extra, found, misfits, writable

DISTRIBUTION = "laconic-transformers"
FOREIGN = "laconic"
"""An unrelated project on PyPI whose package and command have the same names as ours."""
TRANSFORMERS = ">=5.16,<6"
IMAGES = "testbed/vlm"
"""The shipped model that sees images."""
PACKAGES = ("accelerate", "safetensors", "tokenizers", "numpy", "numba", "pillow", "typer", "rich", "psutil", "filelock")


@dataclass(frozen=True)
class Check:
    """One finding; only a failed check that is required makes the exit status 1."""

    name: str
    ok: bool
    detail: str
    required: bool = True


def doctor(
    model: Annotated[str, typer.Option("--model", "-m", help="Model that must load and answer.")] = "testbed/lm",
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")] = False,
) -> None:
    """Check versions, extension points, the GPU, the shipped models, and what is installed beside them.

    Exit status 0 when the core works. What is missing for an extra is said with what to do about it.
    """
    common.quiet()
    with common.spinner("examining"):
        checks = examine(model)
    ok = all(c.ok for c in checks if c.required)
    if as_json:
        common.emit({"ok": ok, "checks": [asdict(c) for c in checks]})
    else:
        _table(checks, ok)
    if not ok:
        raise typer.Exit(common.FAILED)


def examine(model: str) -> list[Check]:
    """All checks; one that raises has failed."""
    checks = [
        Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        _distribution(),
        _guarded("torch", _torch),
        _guarded("transformers", _transformers),
        *(_package(name) for name in PACKAGES),
        _guarded("attention interface", _attention),
        _guarded("cache layers", _cache),
        _guarded("CPU flash with lse", _flash),
        _gpu(),
        _guarded("keep=1.0 equals stock", _neutral),
        _guarded("keep=0.5 frees memory", _frees),
    ]
    models = _guarded(f"model {model}", lambda: _model(model)), _guarded(f"model {IMAGES}", _image_model)
    weights = _guarded("shipped weights", _shipped)
    engine = _guarded("for vLLM", _ways, False)
    return [*checks, *models, weights, *_pretrained(), _cache_folder(), *map(_extra, EXTRAS), engine]


def _guarded(name: str, check: Callable[[], str], required: bool = True) -> Check:
    try:
        return Check(name, True, check(), required)
    except Exception as error:  # whatever is broken is the finding
        return Check(name, False, " ".join(f"{type(error).__name__}: {error}".split()), required)


def _distribution() -> Check:
    """Which laconic runs, and that no other project has written its files over it."""
    try:
        other = distribution(FOREIGN).version
    except PackageNotFoundError:
        pass
    else:
        return Check(
            "distribution",
            False,
            f"another project called {FOREIGN} ({other}) is installed, with the same import and command; "
            f"pip uninstall {FOREIGN}, then pip install --force-reinstall --no-deps {DISTRIBUTION}",
        )
    try:
        return Check("distribution", True, f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    except PackageNotFoundError:
        return Check("distribution", True, f"{DISTRIBUTION}, not installed: run from {Path(__file__).parents[2]}")


def _torch() -> str:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f"{torch.__version__} ({build}), {torch.get_num_threads()} threads"


def _transformers() -> str:
    import transformers
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(TRANSFORMERS).contains(transformers.__version__, prereleases=True):
        raise RuntimeError(f"{transformers.__version__} is not {TRANSFORMERS}; pip install 'transformers{TRANSFORMERS}'")
    return f"{transformers.__version__} (supported: {TRANSFORMERS})"


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, f"not installed; pip install {name}")


def _attention() -> str:
    """A mask and an attention function can be registered and are found again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    from laconic.cache import attention

    attention.register()
    if AttentionInterface()[attention.NAME] is not attention.attention:
        raise RuntimeError("AttentionInterface does not return the registered function")
    if AttentionMaskInterface()[attention.NAME] is not attention.mask:
        raise RuntimeError("AttentionMaskInterface does not return the registered function")
    return "AttentionInterface and AttentionMaskInterface take and return a function"


def _cache() -> str:
    from transformers.cache_utils import CacheLayerMixin

    from laconic.cache.layer import CompressedLayer

    missing = CompressedLayer.__abstractmethods__
    if missing:
        raise RuntimeError(f"CacheLayerMixin asks for methods that laconic does not have: {', '.join(sorted(missing))}")
    return f"CacheLayerMixin fits ({len(CacheLayerMixin.__abstractmethods__)} required methods)"


def _flash() -> str:
    import torch

    from laconic.ops.attend import attend

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 5, 8, generator=generator) for h in (4, 2, 2))
    out, lse = attend(q, k, v, 0.3)
    logits = torch.einsum("bhqd,bhkd->bhqk", q, k.repeat_interleave(2, 1)) * 0.3
    expected = logits.softmax(-1) @ v.repeat_interleave(2, 1)
    gap = max(float((out - expected).abs().max()), float((lse - logits.logsumexp(-1)).abs().max()))
    if gap > 1e-4:
        raise RuntimeError(f"attention or its log-sum-exp is off by {gap:.1e}")
    return f"agrees with plain attention to {gap:.0e}"


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", True, "none; everything runs on the CPU", required=False)
    try:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        torch.ones(8, device="cuda").sum().item()
        return Check("GPU", True, ", ".join(names), required=False)
    except RuntimeError as error:
        return Check("GPU", False, f"found, but does not compute: {' '.join(str(error).split())[:160]}")


def _tiny() -> tuple[Any, Any]:
    """A random two-layer Llama-class model and a prompt; the global random state stays as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval(), torch.randint(1, 64, (1, 40))


def _neutral() -> str:
    import torch

    import laconic

    model, ids = _tiny()
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        expected = model.generate(ids, **options)
        logits = model(ids).logits
        with laconic.compress(model, laconic.Random(keep=1.0)):
            found = model.generate(ids, **options)
            gap = float((model(ids).logits - logits).abs().max())
        after = model(ids).logits
    if not torch.equal(found, expected) or gap > 1e-5:
        raise RuntimeError(f"the answer changed; logits differ by {gap:.1e}")
    if not torch.equal(after, logits):
        raise RuntimeError("the model is not the same after the session")
    return f"same tokens, logits to {gap:.1g}; the model is untouched afterwards"


def _frees() -> str:
    import torch

    import laconic

    model, ids = _tiny()
    with laconic.compress(model, laconic.Random(keep=0.5)) as session, torch.no_grad():
        model(ids)
        stats = session.stats
    if stats.kv_bytes * 2 != stats.kv_bytes_full:
        raise RuntimeError(f"{stats.kv_bytes} of {stats.kv_bytes_full} bytes are stored")
    return f"{stats.kv_bytes:,} of {stats.kv_bytes_full:,} bytes stored"


def _model(name: str) -> str:
    import torch

    from laconic.loading import load
    from laconic.session import compress

    model, tokenizer = load(name)
    ids = tokenizer("laconic", return_tensors="pt").input_ids.to(model.device)
    with compress(model), torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False)  # type: ignore[operator]
    count, dtype = sum(p.numel() for p in model.parameters()), str(model.dtype).removeprefix("torch.")
    return f"loads and answers: {type(model).__name__}, {count / 1e6:.1f} M parameters, {dtype}"


def _image_model() -> str:
    from PIL import Image

    from laconic.engine.engine import Engine, Request
    from laconic.loading import load

    engine = Engine(*load(IMAGES))
    request = Request(question="What is shown?", images=[Image.new("RGB", (48, 48))], methods=[], max_new_tokens=2)
    tokens = engine.answer(request).prompt.tokens_in
    return f"loads and answers: {type(engine.model).__name__}, {tokens:.0f} tokens of an image and a question"


def _shipped() -> str:
    """Every shipped model's weights are whole: a header that is cut off, or a pointer in a file's place, is said here."""
    from safetensors import SafetensorError, safe_open

    from laconic.shipped import MODELS, model_path

    for name in MODELS:
        try:
            with safe_open(model_path(name) / "model.safetensors", "pt") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            raise RuntimeError(f"{name}: {error}; install {DISTRIBUTION} again") from None
    return f"{', '.join(MODELS)} can be opened"


def _pretrained() -> list[Check]:
    """Whether the real models that packages bring can be loaded; nothing is converted for it."""
    from laconic.pretrained import MODELS, PretrainedError, ready

    checks = []
    for name, known in MODELS.items():
        try:
            checks.append(Check(f"model {name}", True, f"{known.title}: {ready(name)}", required=False))
        except PretrainedError as error:
            checks.append(Check(f"model {name}", False, str(error), required=False))
    return checks


def _cache_folder() -> Check:
    """Whether converted models and contexts can be kept."""
    from laconic.pretrained import cache_folder

    folder = cache_folder()
    if writable(folder):
        return Check("cache folder", True, str(folder), required=False)
    said = f"{folder} cannot be written; set LACONIC_CACHE to a folder that can"
    return Check("cache folder", False, said, required=False)


def _extra(extra: Extra) -> Check:
    """Whether a package that something needs is there, in versions that fit together."""
    have, name = found(extra), " or ".join(extra.packages)
    if have is None:
        return Check(name, False, f"for {extra.purpose}: {extra.remedy}", required=False)
    if wrong := misfits(have[0]):
        said = f"{have[1]} asks for {', '.join(wrong)}; give it an environment of its own, or install that version"
        return Check(have[0], False, said, required=False)
    return Check(have[0], True, f"{have[1]}, for {extra.purpose}", required=False)


def _ways() -> str:
    """How many methods a stock vLLM can serve, by how; those on the cache are tried on a tiny model."""
    from laconic.vllm.fitting import ways

    return "; ".join(f"{how}: {', '.join(names)}" for how, names in ways(*_tiny()).items())


def _table(checks: list[Check], ok: bool) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        sign = "[green]ok[/]" if check.ok else "[bold red]failed[/]" if check.required else "[yellow]no[/]"
        table.add_row(sign, check.name, escape(check.detail))
    console = common.out()
    console.print(table)
    console.print("\n[green]all is well[/]" if ok else "\n[bold red]something is wrong; see above[/]")
