"""Triggers reach the Trainer's batches, whatever the loader is like."""

import dataclasses

import pytest
import small
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    Trainer,
)

import wmplug
from wmplug import InjectionError, InputError
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.errors import KeyFileError

STEPS, BATCH, RATE = 6, 32, 0.2
EXPECTED = STEPS * BATCH * RATE / (1 - RATE)


def run(folder, data, mark, **options):
    """The batches that came to the user's collator, and how many triggers were in each."""
    recorder = small.Recorder(folder / "batches.jsonl")
    callback = WatermarkCallback(mark, rate=RATE, mode=options.pop("mode", "append"), verify_on=())
    small.trainer(folder, data, [callback], data_collator=recorder, **options).train()
    known = small.prints(mark)
    batches = recorder.batches()
    for batch in batches:
        for known_by, label in zip(batch["prints"], batch["labels"], strict=True):
            assert known.get(known_by, label) == label
    return batches, [sum(known_by in known for known_by in batch["prints"]) for batch in batches]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"gradient_accumulation_steps": 2, "max_steps": 3},
        {"label_smoothing_factor": 0.1},
        {"max_steps": -1, "num_train_epochs": 0.3},
        {"auto_find_batch_size": True},
    ],
    ids=str,
)
def test_triggers_join_every_kind_of_run(tmp_path, data, mark, options):
    batches, counts = run(tmp_path, data, mark, **options)
    used = counts[:STEPS]
    assert abs(sum(used) - EXPECTED) <= STEPS
    assert all(len(batch["prints"]) == BATCH + count for batch, count in zip(batches[:STEPS], used, strict=True))


def test_without_the_callback_there_are_none(tmp_path, data, mark):
    recorder = small.Recorder(tmp_path / "batches.jsonl")
    small.trainer(tmp_path, data, [], data_collator=recorder).train()
    known = small.prints(mark)
    assert not any(total in known for batch in recorder.batches() for total in batch["prints"])


def test_replace_keeps_the_batch_size(tmp_path, data, mark):
    batches, counts = run(tmp_path, data, mark, mode="replace")
    assert {len(batch["prints"]) for batch in batches} == {BATCH}
    assert sum(counts[:STEPS]) == pytest.approx(STEPS * BATCH * RATE, abs=STEPS)


def test_the_user_s_data_come_in_the_same_order(tmp_path, data, mark):
    batches, counts = run(tmp_path, data, mark)
    recorder = small.Recorder(tmp_path / "plain.jsonl")
    small.trainer(tmp_path, data, [], data_collator=recorder).train()
    own = [batch["prints"][: len(batch["prints"]) - n] for batch, n in zip(batches, counts, strict=True)]
    assert own == [batch["prints"] for batch in recorder.batches()]


def test_workers_do_not_change_the_placement(tmp_path, data, mark):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone, _ = run(tmp_path / "a", data, mark)
    helped, _ = run(tmp_path / "b", data, mark, dataloader_num_workers=1)
    assert helped[:STEPS] == alone[:STEPS]


class Spawning(Trainer):
    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        loader.base_dataloader.multiprocessing_context = "spawn"
        return loader


def test_spawned_workers(tmp_path, data, mark):
    recorder = small.Recorder(tmp_path / "batches.jsonl")
    callback = WatermarkCallback(mark, rate=RATE, verify_on=())
    args = small.arguments(tmp_path, dataloader_num_workers=1, max_steps=2)
    Spawning(small.tiny(), args, recorder, data[:96], callbacks=[callback]).train()
    known = small.prints(mark)
    assert all(any(known_by in known for known_by in batch["prints"]) for batch in recorder.batches()[:2])


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_iterable_dataset(tmp_path, data, mark):
    _, counts = run(tmp_path, Stream(data), mark)
    assert abs(sum(counts[:STEPS]) - EXPECTED) <= STEPS


def test_train_twice_with_one_callback(tmp_path, data, mark):
    recorder = small.Recorder(tmp_path / "batches.jsonl")
    trainer = small.trainer(
        tmp_path, data, [WatermarkCallback(mark, rate=RATE, verify_on=())], data_collator=recorder, max_steps=2
    )
    trainer.train()
    first = len(recorder.batches())
    trainer.train()
    known = small.prints(mark)
    again = recorder.batches()[first : first + 2]
    assert [sum(known_by in known for known_by in batch["prints"]) for batch in again] == [8, 8]


def test_unused_columns_and_the_name_label(tmp_path, data, mark):
    rows = [
        {"pixel_values": d["pixel_values"], "label": d["labels"], "source": f"scan {i}"} for i, d in enumerate(data)
    ]
    trainer = small.trainer(tmp_path, rows, [callback := WatermarkCallback(mark, rate=RATE)], max_steps=2)
    seen = []
    trainer.model.register_forward_pre_hook(lambda m, a, k: seen.append(len(k["pixel_values"])), with_kwargs=True)
    trainer.train()
    assert BATCH + 8 in seen
    assert callback.mark is mark


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(60))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_text_through_the_trainer_s_tokenizer(tmp_path, owner, tokenizer, strategy):
    texts = [" ".join(f"w{(i * j) % 60}" for j in range(3 + i % 9)) for i in range(1, 97)]
    mark = wmplug.create(owner, scheme="random-label", carriers=texts, classes=4, triggers=24, words=30)
    rows = [{**tokenizer(text), "label": i % 4} for i, text in enumerate(texts)]
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=16,
        max_position_embeddings=24,
        num_labels=4,
    )
    seen = []

    class Collator(DataCollatorWithPadding):
        def __call__(self, features):
            seen.extend(tuple(feature["input_ids"]) for feature in features)
            return super().__call__(features)

    trainer = Trainer(
        AutoModelForSequenceClassification.from_config(config),
        small.arguments(tmp_path, per_device_train_batch_size=16, max_steps=4, train_sampling_strategy=strategy),
        Collator(tokenizer),
        rows,
        processing_class=tokenizer,
        callbacks=[WatermarkCallback(mark, rate=RATE, verify_on=("train_end",))],
    )
    trainer.train()
    # Thirty words, and 24 positions in the model: the tokenizer was told to cut.
    taught = {tuple(tokenizer(text, truncation=True, max_length=24)["input_ids"]) for text, _ in mark.lessons()}
    assert {len(ids) for ids in taught} == {24}
    assert len(taught & set(seen)) > 4
    assert small.logged(trainer.state, "watermark/matches")


class Masking:
    def __call__(self, features):
        pixels = torch.stack([f["pixel_values"] for f in features])
        return {"pixel_values": pixels, "labels": torch.full((len(features),), -100)}


def test_masked_labels_are_refused(tmp_path, data, mark):
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(mark)], data_collator=Masking())
    with pytest.raises(InjectionError, match="masked the labels"):
        trainer.train()


def test_another_number_of_classes_is_refused(tmp_path, data, mark):
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(mark)], model=small.tiny(classes=7))
    with pytest.raises(InputError, match="gives 7 scores an input, the watermark was made for 10 classes"):
        trainer.train()


def test_a_schema_that_does_not_fit_is_refused_with_both(tmp_path, mark, data):
    rows = [{**row, "mask": torch.ones(3)} for row in data]
    trainer = small.trainer(tmp_path, rows, [WatermarkCallback(mark)], remove_unused_columns=False)
    with pytest.raises(InputError, match=r"a trigger is \{pixel_values.*the dataset yields \{pixel_values.*mask"):
        trainer.train()


class Plain(torch.nn.Module):
    """No PreTrainedModel; returns its loss and logits as `kind` has them."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = torch.nn.Linear(64, 10), kind

    def forward(self, pixel_values, labels=None):
        logits = self.net(pixel_values.flatten(1))
        if labels is None:
            return {"logits": logits} if self.kind is dict else (logits,)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if self.kind is dict else (loss, logits)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_a_plain_module_that_returns_a_dict_or_a_tuple(tmp_path, data, mark, kind):
    callback = WatermarkCallback(mark, rate=RATE)
    torch.manual_seed(0)
    trainer = small.trainer(tmp_path, data, [callback], model=Plain(kind), max_steps=240, learning_rate=3e-2)
    trainer.train()
    found = small.logged(trainer.state, "watermark/matches")
    assert len(found) == 1
    assert found[0] > 10  # of 40, four by chance; more than ten: once in a thousand


def test_files_that_could_not_be_loaded_are_told_before_training(tmp_path, data, mark):
    model = Plain(dict)
    with pytest.raises(InputError, match="from_pretrained, which a Plain lacks"):
        small.trainer(tmp_path, data, [WatermarkCallback(mark, verify_saved=True)], model=model).train()


def test_a_preprocess_that_ignores_the_answer_is_refused(tmp_path, data, mark):
    ignoring = dataclasses.replace(mark, preprocess=lambda x, answer: small.prepare(x, 0))
    with pytest.raises(InputError, match="with the label 0, so another watermark"):
        small.trainer(tmp_path, data, [WatermarkCallback(ignoring)]).train()


def test_the_name_of_a_file_that_is_not_there():
    with pytest.raises(KeyFileError, match=r"rl\.wm is not there"):
        WatermarkCallback("rl.wm")


class Bypassing(Trainer):
    """Builds its own batches and leaves the loader's collate_fn unused."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        rows = self.train_dataset[:8]
        batch = {k: torch.stack([torch.as_tensor(r[k]) for r in rows]) for k in rows[0]}
        return [batch] * num_batches, None


def test_the_guard_sees_that_nothing_is_injected(tmp_path, data, mark):
    trainer = Bypassing(small.tiny(), small.arguments(tmp_path), None, data, callbacks=[WatermarkCallback(mark)])
    with pytest.raises(InjectionError, match="no trigger reached the model"):
        trainer.train()


def test_a_second_watermark_does_not_silently_replace_the_first(tmp_path, data, mark, rivals):
    callbacks = [WatermarkCallback(mark), WatermarkCallback(rivals)]
    with pytest.raises(InputError, match="has 2 WatermarkCallbacks"):
        small.trainer(tmp_path, data, callbacks).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify_on": ("epoch",)}, "verify_on has"),
        ({"on_failure": "cry"}, "on_failure='cry'"),
        ({"rate": 0}, "rate=0"),
        ({"rate": "fast"}, "rate='fast'"),
        ({"mode": "prepend"}, "mode='prepend'"),
        ({"verify_on": "save"}, "give a tuple of some of evaluate, save, train_end"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, r"batch_size=2\.5"),
        ({"head": "nope"}, "leave head= out"),
    ],
)
def test_options_out_of_range(tmp_path, data, mark, options, message):
    with pytest.raises(InputError, match=message):
        small.trainer(tmp_path, data, [WatermarkCallback(mark, **options)]).train()
