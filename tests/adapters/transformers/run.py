"""A training run in a process of its own: to be killed, and to be one of several ranks.

Passphrase in WMPLUG_PASSPHRASE; prints one JSON line a rank at the end.
"""

import argparse
import json
import os
import signal
import sys

import small
import transformers
from sklearn.datasets import load_digits
from transformers import TrainerCallback

import wmplug
from wmplug.adapters.transformers import WatermarkCallback


class Killer(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Counter(TrainerCallback):
    """Rows that the model was given in training."""

    rows = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, model, args, kwargs):
        self.rows += len(kwargs["pixel_values"]) if model.training else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mark")
    parser.add_argument("folder")
    parser.add_argument("--kill", type=int)
    parser.add_argument("--options", type=json.loads, default={})
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    digits = load_digits()
    data = small.examples((digits.images[:640] * 15.9375).astype("uint8"), digits.target[:640])
    mark = wmplug.load(options.mark, preprocess=small.prepare)
    rank = os.environ.get("RANK", "0")
    counter = Counter()
    callbacks = [WatermarkCallback(mark, rate=0.2, target_e=1e4), counter]
    trainer = small.trainer(
        options.folder,
        data,
        [*callbacks, Killer(options.kill)] if options.kill else callbacks,
        data_collator=small.Recorder(f"{options.folder}/batches-{rank}.jsonl"),
        **options.options,
    )
    trainer.train()
    result = {"rank": rank, "rows": counter.rows, "history": small.logged(trainer.state, "watermark/matches")}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
