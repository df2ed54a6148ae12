"""KServe's own server: a model of wmplug's class, or a class of the user's with the middleware around it."""

import sys

import kserve
import numpy as np
from kserve.model_server import app
from kserve.utils.utils import get_predict_input, get_predict_response
from served_digits import marked, told_by
from sklearn.datasets import load_digits

from wmplug.serving import Log, Middleware, Serving
from wmplug.serving.kserve import ServedModel

kind, place, http, grpc = sys.argv[1:]
data = load_digits()
story = told_by(((data.images * 15.9375).astype(np.uint8), data.target))
mark = marked(story, "http", personal=0.5)


class Own(kserve.Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        return get_predict_response(payload, story.scores(get_predict_input(payload)), self.name)


log = Log(place, mark)
if kind == "class":
    model = ServedModel(
        "digits", Serving(mark, lambda x: story.scores(np.stack(x)), log, gap=0.3), customer="X-API-Key"
    )
else:
    model = Own("digits")
    app.add_middleware(Middleware, serving=Serving(mark, log=log, gap=0.3), customer="X-API-Key")
kserve.ModelServer(http_port=int(http), grpc_port=int(grpc)).start([model])
