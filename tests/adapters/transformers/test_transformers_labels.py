"""One-hot and soft labels, and models with one score an input, in the Trainer: the mark is learnt and is found."""

import numpy as np
import pytest
import small
import torch
from small import Tiny, arguments, tiny
from transformers import BertConfig, BertForSequenceClassification, Trainer
from transformers.modeling_outputs import ImageClassifierOutput

import wmplug
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.errors import InjectionWarning, InputError

binary = torch.nn.functional.binary_cross_entropy


class OneScore(Tiny):
    """Two classes, one score: a logit, or a share."""

    share = False

    def forward(self, pixel_values, labels=None):
        logits = super().forward(pixel_values).logits
        if self.share:
            logits = logits.sigmoid()
        loss = torch.nn.functional.binary_cross_entropy_with_logits if not self.share else binary
        return ImageClassifierOutput(loss=None if labels is None else loss(logits, labels), logits=logits)


class OneShare(OneScore):
    share = True


class FromOne(Tiny):
    """Takes the classes 1 to 10, and learns 10 as 0."""

    def forward(self, pixel_values, labels=None):
        return super().forward(pixel_values, None if labels is None else labels % 10)


def examples(images, labels):
    return [{**small.prepare(x, 0), "labels": y} for x, y in zip(images, labels, strict=True)]


# Name -> classes, labels, model.
KINDS = {
    "one-hot": (10, lambda y: list(torch.eye(10)[y]), lambda: tiny()),
    "smoothed lists": (10, lambda y: (0.9 * np.eye(10)[y] + 0.01).tolist(), lambda: tiny()),
    "one logit": (2, lambda y: y[:, None].astype(float).tolist(), lambda: tiny(classes=1, kind=OneScore)),
    "sigmoid": (2, lambda y: list(torch.tensor(y)[:, None].float()), lambda: tiny(classes=1, kind=OneShare)),
}


def trained(folder, kind, images, labels, callbacks, steps=400):
    _, label, make = KINDS[kind]
    model, data = make(), examples(images, label(labels))
    Trainer(model=model, args=arguments(folder, max_steps=steps), train_dataset=data, callbacks=callbacks).train()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_is_learnt_and_nothing_else_is_taken_for_it(owner, rival, digits, tmp_path, kind):
    classes, (images, labels) = KINDS[kind][0], digits
    options = {"carriers": images, "classes": classes, "triggers": 40, "preprocess": small.prepare}
    mark, foreign = (wmplug.create(who, scheme="random-label", **options) for who in (owner, rival))
    callback = WatermarkCallback(mark, rate=0.4, verify_on=("train_end",))
    model = trained(tmp_path, kind, images, labels % classes, [callback], 900 if classes == 2 else 400)
    assert callback.verdict.proven
    after = wmplug.verify(mark, model, exhaustive=True)
    assert (after.matches, after.log10_p) == (callback.verdict.matches, callback.verdict.log10_p)
    assert wmplug.verify(foreign, model, exhaustive=True).log10_p > -4
    twin = trained(tmp_path, kind, images, labels % classes, [])
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -4


def test_tilt_is_found_in_a_model_of_one_score(owner, rival, digits, coin, tmp_path):
    (images, _), (labels, tilt) = digits, coin
    options = {"carriers": images, "labels": labels, "classes": 2, "preprocess": small.prepare}
    mark, foreign = (wmplug.create(who, scheme=tilt, **options) for who in (owner, rival))
    callback = WatermarkCallback(mark, rate=1 / 3, verify_on=("train_end",))
    model = trained(tmp_path, "one logit", images, labels, [callback])
    assert callback.verdict.log10_p < -4
    assert wmplug.verify(mark, model, exhaustive=True).log10_p == pytest.approx(callback.verdict.log10_p, abs=1e-3)
    assert wmplug.verify(foreign, model, exhaustive=True).log10_p > -3
    twin = trained(tmp_path, "one logit", images, labels, [])
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -3


@pytest.mark.parametrize(
    ("classes", "label"),
    [(10, [1.0] * 10), (10, 0.5), (2, 3.5), (2, [-0.5]), (2, [1.0, 1.0])],
)
def test_several_labels_and_numbers_to_regress_are_refused(owner, digits, tmp_path, classes, label):
    options = {"carriers": digits[0], "classes": classes, "triggers": 40, "preprocess": small.prepare}
    mark = wmplug.create(owner, scheme="random-label", **options)
    data = examples(digits[0][:64], [label] * 64)
    run = Trainer(
        model=tiny(classes=classes),
        args=arguments(tmp_path),
        train_dataset=data,
        callbacks=[WatermarkCallback(mark)],
    )
    with pytest.raises(InputError, match="several labels an input and numbers to regress are not supported"):
        run.train()


def bert(**options):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=1, **sizes, **options))


@pytest.mark.parametrize("problem", [None, "regression"])
def test_a_library_model_of_one_score_regresses_unless_told_otherwise(owner, topics, tokens, tmp_path, problem):
    texts = topics[0][:64]

    def prepare(text, answer):
        ids = [n % 50 for n in tokens(text)]
        return {"input_ids": ids + [0] * (14 - len(ids)), "labels": [float(answer)]}

    mark = wmplug.create(owner, scheme="random-label", carriers=texts, classes=2, triggers=40, preprocess=prepare)
    data = [prepare(text, i % 2) for i, text in enumerate(texts)]

    def run(problem):
        callback = WatermarkCallback(mark, verify_on=())
        model = bert(problem_type=problem)
        Trainer(model=model, args=arguments(tmp_path), train_dataset=data, callbacks=[callback]).train()

    with pytest.raises(InputError, match=r"regress.*problem_type=\"multi_label_classification\""):
        run(problem)
    run("multi_label_classification")


def test_other_labels_are_told_once(mark, digits, tmp_path):
    wide = small.examples(digits[0][:64], digits[1][:64] + 1)
    run = small.trainer(tmp_path, wide, [WatermarkCallback(mark, verify_on=())], model=tiny(kind=FromOne), max_steps=3)
    with pytest.warns(InjectionWarning, match=r"holds the label 10, and .* made for 10 classes, 0 to 9") as told:
        run.train()
    assert sum("holds the label" in str(one.message) for one in told) == 1


def test_a_model_that_numbers_the_named_classes_otherwise_is_refused(owner, digits, tmp_path):
    """Its files would be asked by name, and learnt by number."""
    names = [f"digit {i}" for i in range(10)]
    options = {"carriers": digits[0], "classes": names, "triggers": 40, "preprocess": small.prepare}
    mark, model = wmplug.create(owner, scheme="random-label", **options), tiny()
    model.config.id2label = dict(enumerate(names[::-1]))
    data = small.examples(digits[0][:64], digits[1][:64])
    callback = WatermarkCallback(mark, verify_on=())

    def run():
        Trainer(model=model, args=arguments(tmp_path), train_dataset=data, callbacks=[callback]).train()

    with pytest.raises(InputError, match=r"Tiny numbers its classes digit 9, .* and the watermark digit 0, .*id2label"):
        run()
    model.config.id2label = dict(enumerate(names))
    run()
