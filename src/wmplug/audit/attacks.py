"""The table of attacks, and the type of its entries."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from wmplug.audit import adaptive, cleanse, copyist, detection, evasion, extraction, filters, removal
from wmplug.audit.setting import Setting
from wmplug.errors import InputError

Family = Literal["removal", "extraction", "evasion", "detection", "adaptive"]


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: by which you choose it.
        family: kind of attack.
        does: the attack in a few words.
        function: `(model, setting, seed) -> module` from inputs to scores (n, classes) or labels (n,); it may change
            its model. With `workers` it is found by its module and name.
        paper: its source.
    """

    name: str
    family: Family
    does: str
    function: Callable[[torch.nn.Module, Setting, int], torch.nn.Module]
    paper: str = ""

    def __call__(self, model: torch.nn.Module, setting: Setting, seed: int) -> torch.nn.Module:
        """The thief's model in the end; `model` itself stays unchanged.

        Attacks of the family `extraction` ask the setting's service, where it has one, in place of the model.
        It runs on one thread, so that results do not depend on the number of threads.
        """
        asked = setting.service if self.family == "extraction" and setting.service is not None else model
        copied = copy.deepcopy(asked).eval()
        with torch.random.fork_rng(), _one_thread():
            torch.manual_seed(seed)
            return self.function(copied, setting, seed).eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_TABLE = (
    Attack("fine-tune", "removal", "all layers, on true labels", removal.fine_tuned, "Adi et al. 2018"),
    Attack("last-layer", "removal", "the last layer, on true labels", removal.last_layer, "Adi et al. 2018"),
    Attack(
        "new-last-layer",
        "removal",
        "a new last layer, trained on true labels",
        partial(removal.last_layer, anew=True),
        "Adi et al. 2018",
    ),
    *(
        Attack(
            f"prune-{percent}",
            "removal",
            f"the smallest {percent} % of weights set to zero",
            partial(removal.pruned, share=percent / 100),
            "Han et al. 2015",
        )
        for percent in (50, 75, 90)
    ),
    Attack("fine-prune", "removal", "idle units removed, then fine-tuned", removal.fine_pruned, "Liu et al. 2018"),
    Attack("fp16", "removal", "weights in half precision", removal.halved),
    Attack("int8", "removal", "weights of 8 bits", partial(removal.quantised, bits=8), "Jacob et al. 2018"),
    Attack("int4", "removal", "weights of 4 bits", partial(removal.quantised, bits=4), "Jacob et al. 2018"),
    Attack("noise", "removal", "noise on weights, a fifth of their spread", partial(removal.noisy, share=0.2)),
    Attack("cleanse", "removal", "neural cleanse: patches found and unlearnt", cleanse.cleansed, "Wang et al. 2019"),
    Attack("overwrite", "removal", "a rival's mark of the same scheme", adaptive.overwritten, "Uchida et al. 2017"),
    Attack("soft-clone", "extraction", "another network on its scores", extraction.soft_clone, "Tramèr et al. 2016"),
    Attack("hard-clone", "extraction", "another network on its labels", extraction.hard_clone, "Tramèr et al. 2016"),
    Attack(
        "foreign-clone",
        "extraction",
        "another network on its labels for inputs of another domain",
        extraction.elsewhere,
        "Orekondy et al. 2019",
    ),
    Attack("tuned-clone", "extraction", "a hard clone, then fine-tuned on true labels", extraction.tuned_clone),
    Attack("ensemble", "extraction", "three hard clones, asked together", extraction.ensemble, "Breiman 1996"),
    *(
        Attack(name, "extraction", f"a hard clone {does}", by, paper)
        for name, does, by, paper in (
            ("drop-unsure", "without the tenth of the answers of least confidence", copyist.drop_unsure, ""),
            (
                "drop-disputed",
                "without answers that own networks dispute",
                copyist.drop_disputed,
                "Brodley & Friedl 1999",
            ),
            ("majority", "on the majority of nine answers under noise", copyist.majority, "Cao & Gong 2017"),
            ("agreement", "on answers that another service gives too", copyist.agreement, ""),
            ("relabel", "that labels the tenth of least confidence itself", copyist.relabelled, "Lee 2013"),
            (
                "augment",
                "on shifted and mirrored pictures, or under noise",
                copyist.augmented,
                "Krizhevsky et al. 2012",
            ),
            ("mixup", "on mixtures of inputs and labels", copyist.mixup, "Zhang et al. 2018"),
            ("label-smoothing", "on labels, a tenth of them uniform", copyist.label_smoothing, "Szegedy et al. 2016"),
            ("early-stop", "that stops when held-out answers no longer gain", copyist.stopped_early, "Prechelt 1998"),
            ("second-clone", "of a hard clone", copyist.second_clone, "Furlanello et al. 2018"),
        )
    ),
    Attack("labels-only", "evasion", "returns labels, no scores", evasion.labels_only, "Tramèr et al. 2016"),
    Attack("rounded", "evasion", "returns probabilities to one decimal", evasion.rounded, "Tramèr et al. 2016"),
    Attack("smoothed-labels", "evasion", "returns probabilities, a fifth of them uniform", evasion.smoothed_labels),
    Attack("jpeg", "evasion", "inputs through JPEG, quality 75", evasion.jpeg, "Guo et al. 2018"),
    Attack("resize", "evasion", "inputs a quarter smaller and large again", evasion.resized, "Xie et al. 2018"),
    Attack("smoothing", "evasion", "votes over 32 noisy copies", evasion.smoothed, "Cohen et al. 2019"),
    Attack("crop", "evasion", "inputs cut at all sides and large again", evasion.cropped, "Guo et al. 2018"),
    Attack("3-bits", "evasion", "inputs of eight levels", evasion.coarse, "Xu et al. 2018"),
    Attack("at-random", "evasion", "a tenth of the answers at random", evasion.at_random),
    Attack("unsure", "evasion", "answers at random where it is least sure", filters.unsure),
    *(
        Attack(
            f"among-{others}",
            "evasion",
            f"the mean with {others} unmarked network{'s'[: others > 1]}",
            partial(filters.among, others=others),
            "Breiman 1996",
        )
        for others in (1, 2)
    ),
    Attack(
        "among-2-labels",
        "evasion",
        "returns labels of the mean with 2 unmarked networks",
        filters.among_labels,
        "Breiman 1996",
    ),
    *(
        Attack(
            f"{name}-{percent}",
            "detection",
            f"{does}, {percent} % false alarms",
            partial(by, alarms=percent / 100),
            paper,
        )
        for name, does, by, paper in (
            ("entropy", "flags answers that an overlaid picture does not change", detection.entropy, "Gao et al. 2019"),
            ("duplicates", "flags queries near an earlier one", detection.duplicates, "Chen et al. 2020"),
            ("clusters", "flags activations unlike their class", detection.clusters, "Chen et al. 2018"),
            ("statistics", "flags inputs by six numbers of a picture", filters.statistics, "Mahalanobis 1936"),
            ("residual", "flags what components do not explain", filters.residual, "Jackson & Mudholkar 1979"),
            ("density", "flags features far from natural ones", filters.density, "Sun et al. 2022"),
            (
                "reconstruction",
                "flags what an autoencoder does not restore",
                filters.reconstruction,
                "Meng & Chen 2017",
            ),
        )
        for percent in (1, 5)
    ),
    Attack(
        "guess-triggers",
        "adaptive",
        "fine-tuned on generated pictures under random labels too",
        adaptive.guessed_triggers,
    ),
    Attack("guess-tilt", "adaptive", "a tilt fitted against unmarked networks and subtracted", adaptive.guessed_tilt),
)

ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _TABLE}
FULL = tuple(ATTACKS)
QUICK = (
    "fine-tune",
    "new-last-layer",
    "prune-75",
    "int8",
    "overwrite",
    "soft-clone",
    "hard-clone",
    "tuned-clone",
    "drop-disputed",
    "second-clone",
    "labels-only",
    "jpeg",
    "among-2",
    "among-2-labels",
    "clusters-5",
    "statistics-1",
    "guess-triggers",
    "guess-tilt",
)
# For answers that a key decided: who steals the weights keeps nothing of these.
CLONING = ("fine-tune", *(attack.name for attack in _TABLE if attack.family == "extraction"))


def chosen(attacks: Sequence[str | Attack]) -> tuple[Attack, ...]:
    """Attacks by name, or your own.

    Raises:
        InputError: an unknown attack, one twice, or none.
    """
    wanted = (attacks,) if isinstance(attacks, (str, Attack)) else tuple(attacks)
    if unknown := [name for name in wanted if not isinstance(name, Attack) and name not in ATTACKS]:
        raise InputError(f"no attack is called {', '.join(map(repr, unknown))}: choose from {', '.join(ATTACKS)}")
    result = tuple(ATTACKS[name] if isinstance(name, str) else name for name in wanted)
    names = [attack.name for attack in result]
    if not names or len(set(names)) < len(names):
        raise InputError(f"attacks={', '.join(names) or 'none'}: name one or more, each once")
    return result
