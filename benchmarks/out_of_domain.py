"""A clone of a Fashion-MNIST model without a picture of clothing: the API labels 40,000 generated pictures.

python benchmarks/out_of_domain.py --data /usr/share/datasets/fashion-mnist --icons /usr/share/icons/Adwaita --seeds 1

Queries are outlines of icons (Debian's adwaita-icon-theme) filled with cut-outs of scikit-learn's two photos, and a
quarter plain cut-outs; a class has at most a sixth of the clone's training set. The clone is asked the API's queries
(`with_queries`), and the questions chosen when the mark was made (`unseen`). With `--served` the model is served with
a watermark of scheme `served`, and is not trained with any.
"""

import argparse
from pathlib import Path

import clones
import fashion
import numpy as np
import robustness
import serving
import torch
import training
from PIL import Image
from sklearn.datasets import load_sample_images

import wmplug


def queries(icons: Path, count: int) -> np.ndarray:
    """(count, 28, 28) uint8, the same every time."""
    rng = np.random.default_rng(0)
    photos = [np.asarray(Image.fromarray(photo).convert("L")) for photo in load_sample_images().images]
    outlines = [outline for path in sorted(icons.rglob("*.png")) if (outline := outline_of(path)) is not None]
    if not outlines:
        raise SystemExit(f"{icons} holds no icons of 48 or 96 pixels: apt install adwaita-icon-theme")
    made = np.empty((count, 28, 28), np.uint8)
    for i in range(count):
        fill = cut_out(photos[rng.integers(len(photos))], rng)
        if rng.random() > 0.25:
            fill = (fill * rng.uniform(0.3, 1.6) + rng.uniform(-40, 120)) * shape(outlines, rng)
        made[i] = np.clip(fill, 0, 255)
    return made


def outline_of(path: Path) -> Image.Image | None:
    """The opaque part of an icon of 48 or 96 pixels, if it covers anything."""
    with Image.open(path) as icon:
        if icon.size[0] not in (48, 96):
            return None
        covered = icon.convert("RGBA").getchannel("A")
    return covered if np.asarray(covered).mean() > 20 else None


def cut_out(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(28, 28) crop of a photo, at a random place and scale."""
    side = int(rng.integers(28, min(photo.shape) // 2 + 28))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape)
    part = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(part.resize((28, 28), Image.Resampling.BILINEAR), float)


def shape(outlines: list[Image.Image], rng: np.random.Generator) -> np.ndarray:
    """(28, 28) in 0..1: an icon's outline, turned, stretched, sometimes filled or mirrored."""
    outline = outlines[rng.integers(len(outlines))]
    width, height = (int(side) for side in rng.integers(8, 29, 2))
    if rng.random() < 0.5:
        outline = outline.rotate(float(rng.uniform(-30, 30)))
    if rng.random() < 0.4:
        outline = outline.point(lambda value: 255 * (value > 0))
    mask = np.zeros((28, 28))
    top, left = int(rng.integers(0, 29 - height)), int(rng.integers(0, 29 - width))
    small = outline.resize((width, height), Image.Resampling.BILINEAR)
    mask[top : top + height, left : left + width] = np.asarray(small, float) / 255
    return np.maximum(mask, mask[:, ::-1]) if rng.random() < 0.3 else mask


def run(data: fashion.Fashion, asked: np.ndarray, seed: int, delta: float) -> None:
    """One marked model, and a clone trained on nothing but its labels of `asked`."""
    given = {"carriers": data.own[0], "labels": data.own[1]}
    options = {"classes": 10, "preprocess": fashion.prepare, "queries": data.rest[0], "delta": delta}
    marks = [wmplug.create(robustness.owner(who), scheme="combined", **given, **options) for who in ("owner", "rival")]
    mark, rival = marks
    model, twin = (training.torch_loop(m, data, seed, 8).eval() for m in (mark, None))
    images, _ = fashion.tensors((asked, np.zeros(len(asked), np.int64)))
    said = clones.answers(model, images).argmax(1)
    kept = torch.cat([torch.nonzero(said == c)[: len(said) // 6, 0] for c in range(10)])
    torch.manual_seed(seed)
    clone = fashion.fit(fashion.clone_network(), fashion.batches(images[kept], said[kept], seed), 8)
    rows = [
        ("clone", mark, clone),
        ("own model", mark, model),
        ("unmarked twin", mark, twin),
        ("wrong key", rival, clone),
    ]
    for what, key, suspect in rows:
        ask = clones.labels_only(suspect)
        log = wmplug.verify(key.with_queries(asked, **given), ask, exhaustive=True)
        unseen = wmplug.verify(key, ask, exhaustive=True)
        reached = robustness.accuracy(suspect, data)
        signs = f"signs {log.parts[1].log10_p:.1f}, unseen {unseen.parts[1].log10_p:.1f}"
        print(f"seed {seed}: {what}, {reached:.2f} %, log10 p {log.log10_p:.1f} ({signs})", flush=True)


def run_served(data: fashion.Fashion, asked: np.ndarray, seed: int, gap: float) -> None:
    """The same with a model that only its answers mark."""
    owned = serving.Owned.of(data, seed, 200)
    marking = serving.Serving(owned.mark, log=owned.log, gap=gap)
    said = marking.served(asked, owned.model(asked)).argmax(axis=1)
    kept = np.concatenate([np.flatnonzero(said == c)[: len(said) // 6] for c in range(10)])
    clone = serving.probabilities(serving.fitted(fashion.clone_network(), asked[kept], said[kept], seed, 8))
    asking = owned.asking()
    for what, answer in (("clone", clone), ("the owner's model, which knows no coin", owned.model)):
        log10_p = wmplug.verify(
            asking, lambda x, f=answer: f(x).argmax(axis=1), exhaustive=True, batch_size=1000
        ).log10_p
        reached = 100 * float((answer(data.test[0]).argmax(axis=1) == data.test[1]).mean())
        print(
            f"seed {seed}: {what}, {reached:.2f} %, log10 p {log10_p:.1f} ({len(owned.log.decided())} decided)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--delta", type=float, default=0.3)
    parser.add_argument("--served", action="store_true", help="mark the answers, and not the model")
    parser.add_argument("--gap", type=float, default=0.1, help="of the served answers")
    options = parser.parse_args()
    data, asked = fashion.read(options.data, 20_000), queries(options.icons, options.count)
    for seed in range(options.first, options.first + options.seeds):
        if options.served:
            run_served(data, asked, seed, options.gap)
        else:
            run(data, asked, seed, options.delta)


if __name__ == "__main__":
    main()
