"""One check, one wording, for all adapters."""

import numpy as np
import pytest

from wmplug.errors import InjectionError, InputError
from wmplug.schemes.random_label import RandomLabel
from wmplug.training.loop import At, need_call, need_points
from wmplug.training.marking import Marking
from wmplug.training.options import Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate": 0}, "rate=0: the share"),
        ({"rate": 0.9}, r"rate=0\.9"),
        ({"rate": "fast"}, "rate='fast'"),
        ({"mode": "prepend"}, "mode='prepend': choose 'append' or 'replace'"),
        ({"on_failure": "cry"}, "on_failure='cry': choose 'warn', 'raise' or 'stop'"),
        ({"target_e": 1}, "target_e=1: give a number above 1"),
        ({"target_e": "high"}, "target_e='high'"),
        ({"batch_size": 0}, "batch_size=0: give at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 is a float, not a whole number"),
        ({"batch_size": True}, "batch_size=True"),
    ],
)
def test_an_option_out_of_range_is_refused_before_there_is_a_run(options, says):
    with pytest.raises(InputError, match=says):
        Options(**options)


def test_options_within_range_are_taken():
    taken = Options(rate="auto", mode="replace", on_failure="stop", target_e=20, batch_size=np.int64(1))
    assert (taken.rate, taken.mode, taken.on_failure) == ("auto", "replace", "stop")
    with pytest.raises(TypeError):
        Options(0.1)


@pytest.mark.parametrize(
    ("events", "says"),
    [("epoch", "verify_on='epoch': give a tuple of some of epoch, train_end"), (("save",), r"has \['save'\]: choose")],
)
def test_events_that_the_loop_does_not_have_are_refused(mark, loop, events, says):
    with pytest.raises(InputError, match=says):
        Marking(mark, loop, Options(verify_on=events))


@pytest.mark.parametrize(("given", "says"), [(7, "mark is a int: give a watermark"), (None, "mark is a NoneType")])
def test_what_is_no_watermark_is_refused(loop, given, says):
    with pytest.raises(InputError, match=says):
        Marking(given, loop, Options())


class Gradients(RandomLabel):
    name = "gradients"
    points = frozenset({"samples", "gradients"})


def test_a_scheme_that_touches_more_is_refused_with_both_names():
    need_points("toy", RandomLabel(), {"samples"})
    with pytest.raises(InjectionError, match="'gradients' touches training at gradients, adapter 'toy' offers only"):
        need_points("toy", Gradients(), {"samples"})


def test_a_task_that_the_loop_cannot_ask_for_is_refused_with_both_names(loop):
    need_call("classify", loop)
    with pytest.raises(InjectionError, match="asks a model to embed, adapter 'toy' can only ask it to classify"):
        need_call("embed", loop)


@pytest.mark.parametrize(
    ("at", "text"), [(At(), "this checkpoint"), (At(7), "step 7"), (At(None, 1.5), "epoch 1.5"), (At(7, 2), "step 7")]
)
def test_a_moment_is_named_by_what_is_known_of_it(at, text):
    assert str(at) == text
