"""tilt in two processes of one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import wmplug

SCRIPT = Path(__file__).with_name("two_tilt.py")
PASSPHRASE = "correct horse battery staple"


def test_two_processes_teach_one_tilt(owner, rival, tilt, digits, tmp_path):
    images, labels = digits
    for who, name in ((owner, "mark"), (rival, "rival")):
        made = wmplug.create(who, scheme=tilt, carriers=images, labels=labels, classes=10)
        made.save(tmp_path / f"{name}.wm")
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "WMPLUG_PASSPHRASE": PASSPHRASE}
    done = subprocess.run([*torchrun, SCRIPT, tmp_path], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert one["steps"] == two["steps"]
    assert one["shifted"] == one["steps"]
    assert two["shifted"] == two["steps"]
    assert one["weights"] == two["weights"]
    mine, others = one["log10_p"]
    assert mine < -6
    assert others > -3
    assert two["log10_p"][0] == mine
