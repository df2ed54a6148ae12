"""Trains four epochs and prints which triggers came in which step; killed on request. A script of test_keras_resume."""

import json
import os
import signal
import sys

from keras_models import Probe, build

import keras  # isort: skip
from keras import ops  # isort: skip
from sklearn.datasets import load_digits

import wmplug
from wmplug.adapters.keras import WatermarkCallback


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 3):
            os.kill(os.getpid(), signal.SIGKILL)


def main(path, folder, kill):
    mark = wmplug.load(path)
    probe = Probe(mark.triggers.plan.inputs)
    model = build(probe, units=8)
    callbacks = [WatermarkCallback(mark, rate=0.15, verify_on=()), keras.callbacks.BackupAndRestore(folder)]
    data = load_digits()
    images, labels = (data.images[:43] * 15.9375).astype("uint8"), data.target[:43]
    callbacks += [Kill()] if kill == "kill" else []
    model.fit(images, labels, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    steps = int(ops.convert_to_numpy(ops.convert_to_tensor(model.optimizer.iterations)))
    print(json.dumps({"steps": steps, "diary": ops.convert_to_numpy(probe.diary).tolist()}))


main(*sys.argv[1:])
