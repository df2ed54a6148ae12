import math

import pytest
from thieves import Stranger, Thief

from wmplug import Monitor, verify
from wmplug.errors import InputError, SuspectError


def test_verdict_hook_is_called(mark):
    from wmplug import hookimpl, plugins

    class Plugin:
        heard = ()

        @hookimpl
        def wmplug_verdict(self, verdict, run):
            self.heard = (*self.heard, (verdict, dict(run)))

    plugin = Plugin()
    plugins.registry().manager.register(plugin)
    try:
        verdict = verify(mark, Stranger())
        looked = Monitor(mark).look(Stranger(), step=7, run={"epoch": 2})
    finally:
        plugins.registry().manager.unregister(plugin)
    assert plugin.heard == ((verdict, {}), (looked, {"step": 7, "epoch": 2}))


def test_monitor_discounts_every_look(mark):
    monitor = Monitor(mark)
    verdicts = [monitor.look(Thief(mark), step=10 * u) for u in range(1, 6)]
    raw = verify(mark, Thief(mark), exhaustive=True).log10_e
    for u, verdict in enumerate(verdicts, 1):
        assert verdict.log10_e == pytest.approx(raw + math.log10(6 / math.pi**2 / u**2))
        assert (verdict.looks, verdict.step, verdict.p_is) == (u, 10 * u, "exact")
        assert verdict.log10_p == pytest.approx(-100)
    weights = [10 ** (v.log10_e - raw) for v in verdicts]
    assert sum(weights) < 1
    assert monitor.log10_sum() == pytest.approx(raw + math.log10(sum(weights)))
    assert sum(6 / math.pi**2 / u**2 for u in range(1, 100_000)) < 1


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        ([], False),
        ([2.0], False),
        ([90.0], False),
        ([2.0, 0.0], False),  # never proven
        ([7.0, 5.0], False),  # by a few answers
        ([6.3, 6.3], False),  # by the weight of the second look
        ([90.0, 50.0], False),  # proven still
        ([90.0, 5.0], True),
        ([7.0, -math.inf], True),
        ([7.0, 1.0, 8.0], False),  # proven again
    ],
)
def test_monitor_knows_a_lost_mark_from_one_that_wavers(mark, looks, lost):
    assert Monitor(mark, looks=looks).lost is lost


def test_monitor_goes_on_after_a_resume(mark):
    whole, first = Monitor(mark), Monitor(mark)
    for _ in range(2):
        whole.look(Thief(mark))
        first.look(Thief(mark))
    resumed = Monitor(mark, looks=first.looks)
    assert resumed.look(Thief(mark)).log10_e == whole.look(Thief(mark)).log10_e
    assert len(first.looks) == 2


def test_look_that_failed_is_not_counted(mark):
    monitor = Monitor(mark)
    with pytest.raises(SuspectError):
        monitor.look(lambda batch: 1 / 0)
    assert monitor.looks == []
    assert monitor.look(Thief(mark)).looks == 1


def test_monitor_refuses_a_target_before_training(mark):
    with pytest.raises(InputError, match="target_e"):
        Monitor(mark, target_e=0.5)
