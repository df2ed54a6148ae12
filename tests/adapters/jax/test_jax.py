"""Batches of any form get triggers, and a compiled step is not traced again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import ADAM, Shuffled, epoch, predict, weights

import wmplug
from wmplug.adapters.jax import Watermarking
from wmplug.errors import InjectionError, InjectionWarning, InputError, SuspectError


def taught(mark, x, y):
    """The rows of a batch that are triggers, each with its secret answer."""
    secret = {np.float32(value / np.float32(255)).tobytes(): answer for value, answer in mark.lessons()}
    found = [(row.tobytes() in secret, row.tobytes(), int(label)) for row, label in zip(x, y, strict=True)]
    assert all(secret[key] == label for ours, key, label in found if ours)
    return [ours for ours, *_ in found]


def opened(mark, batches, **options):
    return Watermarking(mark, predict, batches, **options)


class TestShapes:
    @pytest.mark.parametrize(("mode", "rate"), [("append", 0.1), ("append", 0.02), ("replace", 0.1)])
    def test_a_compiled_step_is_traced_once_for_each_size_of_batch(self, mark, pictures, mode, rate):
        x, y = (part[:150] for part in pictures)
        traced, given = [], []

        @jax.jit
        def step(x, y):
            traced.append(x.shape)
            return x.sum() + y.sum()

        with opened(mark, Shuffled(x, y, 64), rate=rate, mode=mode) as marking:
            for _ in range(8):
                for bx, by in marking.batches:
                    given.append(sum(taught(mark, np.asarray(bx), np.asarray(by))))
                    step(bx, by)
        assert len(traced) == 2  # of 64 rows, and of 22
        assert sum(given) == marking._injected > 0
        assert len(set(given)) > 1
        rows = 8 * 150
        share = sum(given) / (rows + sum(given) if mode == "append" else rows)
        assert abs(share - rate) < 0.3 * rate

    def test_the_functions_that_join_are_compiled_once_for_each_size_too(self, mark, pictures):
        from wmplug.adapters.jax.batches import _compiled

        x, y = (jnp.asarray(part[:150]) for part in pictures)
        _compiled.clear_cache()
        with opened(mark, [(x[:64], y[:64]), (x[64:128], y[64:128]), (x[128:], y[128:])], rate=0.1) as marking:
            for _ in range(4):
                for bx, by in marking.batches:
                    assert isinstance(bx, jax.Array)
                    assert isinstance(by, jax.Array)
        assert _compiled._cache_size() == 4  # inputs and labels, of 64 rows and of 22

    def test_numpy_and_jax_get_the_same_rows(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        seen = []
        for kind in (np.asarray, jnp.asarray):
            with opened(mark, [(kind(x), kind(y))] * 5, rate=0.07) as marking:
                seen.append([(type(bx), np.asarray(bx), np.asarray(by)) for bx, by in marking.batches])
        assert seen[0][0][0] is np.ndarray
        for (_, ax, ay), (_, bx, by) in zip(*seen, strict=True):
            np.testing.assert_array_equal(ax, bx)
            np.testing.assert_array_equal(ay, by)

    def test_a_batch_that_never_holds_a_trigger_is_refused(self, mark, pictures):
        x, y = pictures
        with (
            pytest.raises(InputError, match="a batch of 2 never contains a trigger"),
            opened(mark, [(x[:2], y[:2])], rate=2e-6) as m,
        ):
            list(m.batches)

    def test_an_empty_batch_passes(self, mark, pictures):
        x, y = pictures
        with opened(mark, [(x[:0], y[:0]), (x[:64], y[:64])], rate=0.2) as marking:
            assert [len(by) for _, by in marking.batches] == [0, 80]


class TestForms:
    @pytest.mark.parametrize(
        ("make", "get"),
        [
            (lambda x, y: [x, y], lambda b: (b[0], b[1])),
            (lambda x, y: {"image": x[..., None], "label": y}, lambda b: (b["image"][..., 0], b["label"])),
            (lambda x, y: (x, y.reshape(-1, 1)), lambda b: (b[0], b[1][:, 0])),
            (lambda x, y: (x, np.eye(10, dtype=np.float32)[y]), lambda b: (b[0], b[1].argmax(1))),
            (lambda x, y: (x, jnp.eye(10)[y]), lambda b: (b[0], b[1].argmax(1))),
            (lambda x, y: ({"pixels": x}, y), lambda b: (b[0]["pixels"], b[1])),
            (lambda x, y: (x, y, np.full(len(y), 0.5, np.float32)), lambda b: (b[0], b[1])),
        ],
        ids=["list", "mapping", "column", "one-hot", "on device", "nested", "weights"],
    )
    def test_a_batch_keeps_its_form(self, mark, pictures, make, get):
        x, y = (part[:64] for part in pictures)
        batch = make(x, y)
        with opened(mark, [batch], rate=0.2) as marking:
            (joined,) = marking.batches
        assert jax.tree.structure(joined) == jax.tree.structure(batch)
        assert [leaf.dtype for leaf in jax.tree.leaves(joined)] == [leaf.dtype for leaf in jax.tree.leaves(batch)]
        bx, by = map(np.asarray, get(joined))
        assert taught(mark, np.ascontiguousarray(bx), by) == [False] * 64 + [True] * 16
        if isinstance(batch, tuple) and len(batch) == 3:
            assert np.asarray(joined[2])[64:].tolist() == [1.0] * 16

    @pytest.mark.filterwarnings("ignore:the trained model does not prove")  # nothing is trained
    def test_label_finds_the_labels_of_any_pytree(self, owner, digits, pictures):
        images, labels = digits
        mark = wmplug.create(
            owner,
            scheme="random-label",
            carriers=images,
            labels=labels,
            classes=10,
            triggers=30,
            preprocess=lambda image, answer: {"in": {"a": image / 255, "b": np.float32(1)}, "out": {"digit": answer}},
        )
        x, y = (part[:64] for part in pictures)
        batch = {"in": {"a": x, "b": np.ones(64, np.float32)}, "out": {"digit": y}}
        asked = []

        def predict(params, given):
            asked.append(jax.tree.map(jnp.shape, given))
            return jnp.zeros((len(given["a"]), 10))

        with Watermarking(
            mark, predict, [batch], rate=0.2, params={}, label=("out", "digit"), batch_size=16
        ) as marking:
            (joined,) = marking.batches
            assert not marking.checkpoint({}).proven
        assert joined["out"]["digit"].shape == (80,)
        assert asked[0] == {"a": (16, 8, 8), "b": (16,)}

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda x, y: (x, y.astype(np.float32)), "float32 .64,., but each row needs one class"),
            (lambda x, y: (x, np.ones((64, 10), np.float32)), "several labels an input"),
            (lambda x, y: (x, np.ones((64, 7), np.float32)), "each row needs one class"),
            (lambda x, y: (x[:, :4], y), r"has shape \(8, 8\), a batch's rows \(4, 8\): pass preprocess="),
            (lambda x, y: ((x * 255).astype(np.uint8), y), "wmplug does not guess the scale"),
            (lambda x, y: (x, y[:5]), r"the arrays of a batch have \[5, 64\] rows"),
            (lambda x, y: {"image": x, "digit": y}, "pass label="),
            (lambda x, y: x, "pass label="),
            (lambda x, y: (x, y.tolist()), "64 of its arrays are at label"),
            (lambda x, y: {"image": x, "mask": x, "label": y}, "a trigger is .* a batch .*mask.* pass preprocess="),
        ],
    )
    def test_what_does_not_fit_is_refused(self, mark, pictures, make, why):
        x, y = (part[:64] for part in pictures)
        with pytest.raises(InputError, match=why), opened(mark, [make(x, y)], rate=0.2) as marking:
            list(marking.batches)

    def test_labels_that_are_none_of_the_classes_cause_a_warning(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        with (
            pytest.warns(InjectionWarning, match="holds the label 10"),
            opened(mark, [(x, y + 1)], rate=0.2) as marking,
        ):
            list(marking.batches)


class TestDevices:
    def test_a_sharded_batch_stays_where_it_is(self, mark, pictures):
        mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
        x, y = (jax.device_put(part[:64], rows) for part in pictures)
        with opened(mark, [(x, y)], rate=0.25, mode="replace") as marking:
            ((bx, by),) = marking.batches
        assert bx.sharding == by.sharding == rows
        assert sum(taught(mark, np.asarray(bx), np.asarray(by))) == 16
        with (
            pytest.raises(InputError, match=r'lies on 2 devices.*pass mode="replace"'),
            opened(mark, [(x, y)]) as marking,
        ):
            list(marking.batches)

    def test_a_batch_of_another_device_stays_there(self, mark, pictures):
        second = jax.devices()[1]
        x, y = (jax.device_put(part[:64], second) for part in pictures)
        with opened(mark, [(x, y)], rate=0.2) as marking:
            ((bx, by),) = marking.batches
        assert bx.devices() == by.devices() == {second}

    def test_several_processes_are_refused(self, mark, monkeypatch):
        monkeypatch.setattr(jax, "process_count", lambda: 4)
        with pytest.raises(InjectionError, match="in one process, and 4 are running"), opened(mark, []):
            pass


class TestRun:
    def test_a_run_resumed_from_its_state_gets_the_same_batches(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        whole, parts = [], []
        with opened(mark, [(x, y)] * 9, rate=0.07) as marking:
            whole += [by for _, by in marking.batches]
        with opened(mark, [(x, y)] * 4, rate=0.07) as marking:
            parts += [by for _, by in marking.batches]
        state = json.loads(json.dumps(marking.state_dict()))
        again = opened(mark, [(x, y)] * 5, rate=0.07)
        again.load_state_dict({**state, "root": "0" * 64})
        assert again._next == 0
        again.load_state_dict(state)
        with again:
            parts += [by for _, by in again.batches]
        assert len({labels.tobytes() for labels in whole}) > 4
        assert [labels.tobytes() for labels in whole] == [labels.tobytes() for labels in parts]

    def test_an_iterator_of_each_epoch_is_marked(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        with opened(mark, None, rate=0.2) as marking:
            for _ in range(3):
                assert [len(by) for _, by in marking.marked(iter([(x, y)]))] == [80]
            with pytest.raises(InputError, match=r"marking\.marked\(iterator\)"):
                _ = marking.batches
        assert marking.state_dict()["batches"] == 3

    def test_a_checkpoint_is_tried_before_the_first_step(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        with (
            pytest.raises(InputError, match=r"cannot be asked as it would be .*7 scores an input"),
            opened(mark, [(x, y)], params=weights(outputs=7)) as marking,
        ):
            next(iter(marking.batches))

    def test_a_function_needs_its_parameters(self, mark, pictures):
        x, y = (part[:64] for part in pictures)
        with opened(mark, [(x, y)], rate=0.2) as marking:
            list(marking.batches)
            with pytest.raises(InputError, match="params are missing"):
                marking.checkpoint()
        with pytest.raises(InputError, match="only you know the newest parameters"):
            opened(mark, [], verify_on=("train_end",))

    def test_outside_of_the_block_nothing_is_marked(self, mark, pictures):
        x, y = pictures
        marking = opened(mark, [(x[:64], y[:64])], rate=0.2)
        for use in (lambda: list(marking.batches), lambda: marking.marked([]), lambda: marking.checkpoint(weights())):
            with pytest.raises(InjectionError, match="outside the with-block"):
                use()
        with marking:
            late = marking.batches
            list(late)
        with pytest.raises(InjectionError, match="outside the with-block"):
            list(late)

    @pytest.mark.filterwarnings("ignore:the trained model does not prove")  # one step is too few
    def test_nothing_of_the_parameters_is_kept(self, mark, pictures):
        """A step that donates them would leave deleted arrays behind."""
        x, y = (part[:64] for part in pictures)
        params = weights()
        with opened(mark, [(x, y)], rate=0.2, params=params) as marking:
            list(marking.batches)
            marking.checkpoint(params)
            assert marking._params is None
            assert marking._loop.params is None

    def test_a_model_that_answers_otherwise_is_told(self, mark):
        for output in ((jnp.zeros((64, 10)), jnp.zeros(64)), jnp.zeros((3, 10))):
            suspect = Watermarking(mark, lambda params, x, output=output: output, []).suspect({})
            with pytest.raises(SuspectError, match="for 64 inputs: let it return one array"):
                suspect.answer([mark.lessons()[0][0]])


@pytest.mark.filterwarnings("ignore:the trained model does not prove")  # an epoch is too few
def test_the_register_holds_what_was_trained(owner, digits, pictures, tmp_path):
    from wmplug import Owner
    from wmplug.register import Register

    images, labels = digits
    who = Owner.create(tmp_path / "register", name="Ada", passphrase="correct horse", scrypt_n=2**10)
    mark = wmplug.create(who, scheme="random-label", carriers=images, labels=labels, classes=10, triggers=30,
                         preprocess=lambda image, answer: (image / np.float32(255), answer))  # fmt: skip
    x, y = pictures
    params = weights()
    state = ADAM.init(params)
    with opened(mark, Shuffled(x, y, 64), params=params, require_evidence=True) as marking:
        params, state = epoch(params, state, marking.batches)
        marking.checkpoint(params, epoch=0)
    entries = list(Register(tmp_path / "register").entries())
    kinds = [entry.type for entry in entries]
    assert kinds[-3:] == ["system.committed", "training.checkpoint", "training.finished"]
    assert entries[-3].body["tensors"]["elements"] == 64 * 128 + 128 + 1280 + 10
    assert entries[-2].body["step"] == 29
