"""An API answers marked. One of three customers trains a clone on its answers, and the clone is proven and traced.

    python examples/served_clone.py

The owner serves a scikit-learn model of digits over HTTP, as any ASGI service, with wmplug's middleware around it.
Three customers ask shifted digits. One of them trains a Keras model on the labels that the API gave, and never sees a
score or a weight. KERAS_BACKEND chooses the customer's backend (torch here, unless it is set).
Needs: wmplug[serving,keras] torch starlette uvicorn httpx.
"""

import os
import socket
import tempfile
import threading
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

import httpx
import keras
import numpy as np
import uvicorn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import wmplug
from wmplug.serving import Log, Middleware, Serving, commit, customer_name, trace

CUSTOMERS = ("acme", "umbra", "initech")


def flat(images):
    return np.asarray(images).reshape(len(images), -1) / 255


def shifted(images, seed):
    """Every picture moved by a pixel, in a direction of its own."""
    moves = np.random.default_rng(seed).integers(-1, 2, (len(images), 2))
    return np.stack([np.roll(image, move, (0, 1)) for image, move in zip(images, moves, strict=True)])


def service(model):
    """The API as it was before: `instances` in, `predictions` out."""

    async def predict(request):
        asked = await request.json()
        return JSONResponse({"predictions": model.predict_proba(flat(asked["instances"])).tolist()})

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


def listening(app):
    """The address of a server that runs until the program ends."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{port}/predict"


def ask(url, pictures, key):
    """The labels that the API gives a customer."""
    with httpx.Client(headers={"x-api-key": key}, timeout=60) as client:
        parts = np.array_split(pictures, 20)
        answers = [client.post(url, json={"instances": part.tolist()}).json()["predictions"] for part in parts]
    return np.concatenate(answers).argmax(axis=1)


def clone(pictures, labels):
    """A Keras model trained on nothing but these labels."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pictures.astype("float32"), labels, batch_size=32, epochs=60, verbose=0)
    return lambda asked: model.predict(np.asarray(asked, "float32"), verbose=0).argmax(axis=1)


def main():
    data = load_digits()
    images, labels = (data.images * 15.9375).astype(np.uint8), data.target
    own, held, others = slice(0, 500), slice(500, 900), slice(900, None)
    model = LogisticRegression(C=10, max_iter=1000).fit(flat(images[own]), labels[own])
    with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
        owner = wmplug.Owner.create(f"{folder}/ada", name="Ada", passphrase="only for this example")
        carriers = {"carriers": images[held], "labels": labels[held]}
        mark = wmplug.create(owner, scheme="served", **carriers, classes=10, personal=0.5)
        log = Log(f"{folder}/decisions.db", mark)
        print(Serving(mark, lambda x: model.predict_proba(flat(x)), gap=0.2).cost(shifted(images[others], 9)))
        serving = Serving(mark, log=log, gap=0.2)
        url = listening(Middleware(service(model), serving, customer="x-api-key"))  # the one line

        asked = {
            who: np.concatenate([shifted(images[others], 10 * i + j) for j in range(3)])
            for i, who in enumerate(CUSTOMERS)
        }
        told = {who: ask(url, pictures, f"key of {who}") for who, pictures in asked.items()}
        entry = commit(log, mark)
        print(f"the log holds {entry.body['count']} decisions; the register holds their root {entry.body['root'][:16]}")

        suspects = {
            "clone of what umbra was told": clone(asked["umbra"], told["umbra"]),
            "the same pictures, the model's own answers": clone(asked["umbra"], model.predict(flat(asked["umbra"]))),
        }
        decided = log.decided()
        asking = mark.with_queries(decided, **carriers)
        for name, suspect in suspects.items():
            print(f"{name}: {wmplug.verify(asking, suspect, exhaustive=True)}")
            accused = trace(mark, decided, suspect, **carriers).accused(1e-3)
            named = [who for who in CUSTOMERS if ("the suspect", customer_name(f"key of {who}")) in accused]
            print(f"  traced to {', '.join(named) or 'nobody'} of {len(log.customers())} customers")
        log.close()


if __name__ == "__main__":
    main()
