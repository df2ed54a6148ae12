"""What serving takes: a decision, a log entry, and an HTTP service with and without the middleware.

python benchmarks/serving_speed.py

Digits of scikit-learn, in batches of 64. Times are medians with quartiles over rounds; the two services are asked by
turns, and the ratio is that of each pair. A large log is committed to whole, and after each of five days.
"""

import argparse
import resource
import socket
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import wmplug
from wmplug.schemes.served import Served
from wmplug.serving import Decided, Log, Middleware, Serving

BATCH = 64


def spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def listening(app) -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{port}/predict"


def committing(folder: Path, mark: wmplug.Watermark, count: int, day: int) -> None:
    """What commitments of a large log take: of the whole, and of the decisions of a day more."""
    log, drawn = Log(folder / "large.db", mark), np.random.default_rng(0)
    shape = mark.triggers.plan.inputs.shape[1:]

    def add(rows: int) -> None:
        for first in range(0, rows, 5000):
            size = min(5000, rows - first)
            asked = drawn.integers(0, 256, (size, *shape)).astype(np.uint8)
            log.add(Decided(asked, np.tile([0, 1], (size, 1)), ("acme",) * size))

    def timed(committed: dict[str, int]) -> tuple[str, float]:
        began = time.perf_counter()
        root, size = log.commit(committed)
        committed[root] = size
        return root, time.perf_counter() - began

    add(count)
    known: dict[str, int] = {}
    _, whole = timed(known)
    grown = []
    for _ in range(5):
        add(day)
        root, took = timed(known)
        grown.append(took)
    again, full = timed({})
    print(f"commit of {count} decisions, all hashed: {whole:.2f} s; after 5 days of {day} more: {full:.2f} s")
    print(f"commit of a day's {day} more: {spread(grown)} s; the same root: {root == again}")
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--decisions", type=int, default=200_000, help="in the log that is committed to")
    given = parser.parse_args()
    rounds = given.rounds
    data = load_digits()
    images, labels = (data.images * 15.9375).astype(np.uint8), data.target
    flat = lambda x: np.asarray(x).reshape(len(x), -1) / 255  # noqa: E731
    model = MLPClassifier((64,), max_iter=200, random_state=0).fit(flat(images[:600]), labels[:600])
    folder = Path(tempfile.mkdtemp())
    owner = wmplug.Owner.create(folder / "register", name="owner", passphrase="benchmark", scrypt_n=2**10)
    held = images[600:1000]
    mark = wmplug.create(
        owner, scheme=Served(pool=model.predict_proba(flat(held))), carriers=held, labels=labels[600:1000], classes=10
    )
    log = Log(folder / "log.db", mark)
    batches = [images[1000:][np.random.default_rng(i).integers(0, 797, BATCH)] for i in range(rounds)]
    scores = [model.predict_proba(flat(batch)) for batch in batches]
    serving = Serving(mark, gap=0.1)
    best = np.sort(np.concatenate(scores), axis=1)
    print(f"the key decides {np.mean(best[:, -1] - best[:, -2] < 0.1):.1%} of the queries")
    deciding, logging = [], []
    for batch, said in zip(batches, scores, strict=True):
        began = time.perf_counter()
        serving.served(batch, said, "acme")
        deciding.append(1e6 * (time.perf_counter() - began) / BATCH)
        entry = Decided(batch, np.tile([0, 1], (BATCH, 1)), ("acme",) * BATCH)
        began = time.perf_counter()
        log.add(entry)
        logging.append(BATCH / (time.perf_counter() - began))
    print(f"a decision, microseconds a query: {spread(deciding)}")
    print(f"decisions logged a second, 64 at a time, each on disk: {spread(logging)}")

    async def predict(request):
        asked = await request.json()
        return JSONResponse({"predictions": model.predict_proba(flat(asked["instances"])).tolist()})

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    plain, marked = listening(app), listening(Middleware(app, Serving(mark, log=log, gap=0.1), customer="x-api-key"))
    for size in (1, BATCH):
        ratios = []
        with httpx.Client(headers={"x-api-key": "acme"}) as client:
            for turn, batch in enumerate(batches):
                spent = {}
                for url in (plain, marked) if turn % 2 else (marked, plain):
                    began = time.perf_counter()
                    client.post(url, json={"instances": batch[:size].tolist()}).raise_for_status()
                    spent[url] = time.perf_counter() - began
                ratios.append(spent[marked] / spent[plain])
        print(f"an HTTP request of {size} digits, marked over plain: {spread(ratios)}")
    committing(folder, mark, given.decisions, 2000)
    print(f"memory of the process at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
