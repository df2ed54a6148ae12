"""The cost of the callback per training step, and of verification per query.

python benchmarks/overhead.py

Runs are interleaved (plain, plain again, marked, plain, ...) and compared pair by pair in CPU time, so that a drift of
the machine's speed cancels; "A/A" is plain against plain and shows how a ratio of one looks here.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# glibc gives freed memory back to the kernel in the middle of a step, which costs more than the measured effect.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "536870912", "MALLOC_TRIM_THRESHOLD_": "536870912"}
if os.environ.get("OMP_NUM_THREADS") != "1" or any(os.environ.get(k) != v for k, v in MALLOC.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"})
os.environ["KERAS_BACKEND"] = "torch"

import fashion
import keras
import numpy as np
import torch
import training
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import wmplug
import wmplug.adapters.keras
import wmplug.adapters.torch
import wmplug.adapters.transformers
from wmplug.schemes.tilt import Tilt

STEPS, WARM = 60, 10
RATE = 4 / (fashion.BATCH + 4)  # append: 4 triggers to a batch of 64


def data() -> fashion.Fashion:
    """Noise of the right shape, since timing does not depend on the content."""
    draw = np.random.default_rng(0)
    n = fashion.BATCH * (STEPS + WARM)
    own = draw.integers(0, 256, (n, 28, 28), dtype=np.uint8), draw.integers(0, 10, n)
    return fashion.Fashion(own, own, own, own)


class Clock(TrainerCallback):
    """CPU seconds from step WARM to the last."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM:
            self.start = time.process_time()
        self.seconds = time.process_time() - getattr(self, "start", 0.0)


def torch_steps(mark: Any, mode: str, given: fashion.Fashion, rate: float | None = None) -> float:
    torch.manual_seed(0)
    model, batches = fashion.network(), fashion.loader(given.own, 0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def steps() -> float:
        for step, (x, y) in enumerate(batches):
            if step == WARM:
                start = time.process_time()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return time.process_time() - start

    if mark is None:
        return steps()
    with wmplug.adapters.torch.Watermarking(mark, model, batches, rate=rate or rate_of(mode), mode=mode):
        return steps()


def trainer_steps(mark: Any, mode: str, given: fashion.Fashion) -> float:
    torch.manual_seed(0)
    x, y = fashion.tensors(given.own)
    examples = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    clock = Clock()
    callbacks: list[Any] = [clock]
    if mark is not None:
        callbacks.append(
            wmplug.adapters.transformers.WatermarkCallback(mark, rate=rate_of(mode), mode=mode, verify_on=())
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=STEPS + WARM,
            per_device_train_batch_size=fashion.BATCH,
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model=training.Classifier(), args=arguments, train_dataset=examples, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


class EpochClock(keras.callbacks.Callback):
    """CPU seconds of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.process_time() - self.start


def keras_steps(mark: Any, mode: str, given: fashion.Fashion) -> float:
    keras.utils.set_random_seed(0)
    model = training.keras_network()
    clock = EpochClock()
    callbacks: list[Any] = [clock]
    if mark is not None:
        callbacks.append(
            wmplug.adapters.keras.WatermarkCallback(
                training.channels_last(mark), rate=rate_of(mode), mode=mode, verify_on=()
            )
        )
    x, y = fashion.tensors(given.own)
    model.fit(x.movedim(1, -1).numpy(), y.numpy(), fashion.BATCH, 2, verbose=0, callbacks=callbacks)
    return clock.seconds


STEPPED = {"torch": torch_steps, "transformers": trainer_steps, "keras": keras_steps}


def rate_of(mode: str) -> float:
    return RATE if mode == "append" else 4 / fashion.BATCH


def spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


def training_cost(name: str, run: Callable[..., float], mark: Any, pairs: int) -> None:
    given = data()
    run(None, "append", given)
    ratios: dict[str, list[float]] = {"A/A": [], "append": [], "replace": []}
    for _ in range(pairs):
        base, again = run(None, "append", given), run(None, "append", given)
        ratios["A/A"].append(again / base)
        for mode in ("append", "replace"):
            marked, after = run(mark, mode, given), run(None, "append", given)
            ratios[mode].append(2 * marked / (again + after))
            again = after
    share = 1 + 4 / fashion.BATCH
    print(f"{name:13s} A/A {spread(ratios['A/A'])}")
    print(f"{'':13s} append, over 1 + k/B = {share:.4f}: {spread([r / share for r in ratios['append']])}")
    print(f"{'':13s} replace: {spread(ratios['replace'])}", flush=True)


def verification_cost(mark: Any, pairs: int) -> None:
    """All queries of a large trigger set against the same inputs, prepared alike, through the bare model."""
    model = fashion.network().eval()
    inputs = [mark.triggers.row(row) for test in mark.triggers.plan.tests for row in test.rows.tolist()]

    def plain() -> float:
        start = time.process_time()
        with torch.no_grad():
            for i in range(0, len(inputs), 64):
                model(torch.stack([fashion.prepare(x, 0)[0] for x in inputs[i : i + 64]]))
        return time.process_time() - start

    def verified() -> float:
        start = time.process_time()
        wmplug.verify(mark, model, exhaustive=True)
        return time.process_time() - start

    verified()
    both = [(plain(), plain(), verified()) for _ in range(pairs)]
    print(f"verification  A/A {spread([b / a for a, b, _ in both])}")
    print(f"{'':13s} {len(inputs)} queries over a plain pass: {spread([c / b for _, b, c in both])}", flush=True)


def tilt_mark(owner: Any, given: fashion.Fashion, questions: int) -> Any:
    """A tilt over the carriers with random references, since timing does not depend on their answers."""
    classes, n = 10, len(given.own[0])
    said = np.random.default_rng(1).dirichlet(np.ones(classes), n).astype(np.float32)
    votes = np.eye(classes, dtype=np.float32)[said.argmax(axis=1)]
    scheme = Tilt(pool=np.stack([said, votes]), questions=questions, blends=2000)
    x, y = given.own
    return wmplug.create(owner, scheme=scheme, carriers=x, labels=y, classes=classes, preprocess=fashion.prepare)


def tilt_cost(mark: Any, pairs: int) -> None:
    """A loop with tilt over the same without, times (1 + k/B) for the blends that join a batch; then verification."""
    given, rate = data(), mark.scheme.rate
    share = 1 / (1 - rate)
    torch_steps(None, "append", given)
    ratios: dict[str, list[float]] = {"A/A": [], "tilt": []}
    for _ in range(pairs):
        base, again = torch_steps(None, "append", given), torch_steps(None, "append", given)
        marked, after = torch_steps(mark, "append", given, rate), torch_steps(None, "append", given)
        ratios["A/A"].append(again / base)
        ratios["tilt"].append(2 * marked / (again + after) / share)
    print(f"tilt          A/A {spread(ratios['A/A'])}")
    print(f"{'':13s} torch, over 1 + k/B = {share:.4f}: {spread(ratios['tilt'])}", flush=True)
    verification_cost(mark, pairs)


def register_cost(mark: Any, pairs: int, images: int = 20_000, epochs: int = 2) -> None:
    """A whole marked run, a look after each epoch, with its register, over the same run without it."""
    draw = np.random.default_rng(0)
    own = draw.integers(0, 256, (images, 28, 28), dtype=np.uint8), draw.integers(0, 10, images)
    given = fashion.Fashion(own, own, own, own)

    def whole(used: Any) -> float:
        torch.manual_seed(0)
        model, batches = fashion.network(), fashion.loader(given.own, 0)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wmplug.errors.VerificationWarning)
            with wmplug.adapters.torch.Watermarking(used, model, batches) as marking:
                for _ in range(epochs):
                    fashion.fit(model, batches, 1)
                    marking.checkpoint()
        return time.process_time() - start

    bare = dataclasses.replace(mark, register=None)
    both = [(whole(bare), whole(mark), whole(bare)) for _ in range(pairs)]
    print(f"register      A/A {spread([c / a for a, _, c in both])}")
    print(f"{'':13s} on over off, {images} images, {epochs} epochs: {spread([2 * b / (a + c) for a, b, c in both])}")
    print(f"{'':13s} seconds: {statistics.median(b - (a + c) / 2 for a, b, c in both):+.2f}", flush=True)


def import_cost() -> None:
    """Wall milliseconds of `import wmplug` over those of an empty interpreter."""
    clocks: dict[str, list[float]] = {"pass": [], "import wmplug": []}
    for _ in range(20):
        for code, values in clocks.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            values.append(1000 * (time.perf_counter() - start))
    pairs = zip(clocks["pass"], clocks["import wmplug"], strict=True)
    print(f"import wmplug {statistics.median(b - a for a, b in pairs):.1f} ms (median of 20 pairs)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=["import", "verification", "register", "tilt", *STEPPED])
    options = parser.parse_args()
    torch.set_num_threads(1)
    owner = wmplug.Owner.create(Path(tempfile.mkdtemp()) / "r", name="a", passphrase="benchmark", scrypt_n=2**10)
    given = data()
    create = {"scheme": "random-label", "carriers": given.own[0], "classes": 10, "preprocess": fashion.prepare}
    mark = wmplug.create(owner, **create)
    costs: dict[str, Callable[[], None]] = {
        "import": import_cost,
        "verification": lambda: verification_cost(wmplug.create(owner, triggers=4000, **create), options.pairs),
        **{name: functools.partial(training_cost, name, run, mark, options.pairs) for name, run in STEPPED.items()},
        "tilt": lambda: tilt_cost(tilt_mark(owner, given, 4000), options.pairs),
        "register": lambda: register_cost(mark, max(3, options.pairs // 3)),
    }
    for name in options.only or costs:
        costs[name]()


if __name__ == "__main__":
    main()
