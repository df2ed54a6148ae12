"""Services that will be killed: one for each name that comes in. Each tells its pid, and each decision on disk."""

import os
import sys
from types import SimpleNamespace

import numpy as np

from wmplug.serving import Log
from wmplug.watermark.decided import Decided

place, watermark = sys.argv[1:]
mark = SimpleNamespace(
    id=watermark, triggers=SimpleNamespace(plan=SimpleNamespace(inputs=np.zeros((1, 8, 8), np.uint8)))
)


def serve(name):
    log = Log(place, mark)
    for number in range(10**6):
        picture = np.full((1, 8, 8), number % 251, np.uint8)
        log.add(Decided(picture, np.array([[number % 9, 9]]), (f"{name}/{number}",)))
        os.write(1, f"{name}/{number}\n".encode())


for line in sys.stdin:
    if pid := os.fork():
        os.write(1, f"pid {pid}\n".encode())
    else:
        serve(line.strip())
