"""Answers that mark whoever learns from them: a served model, the log of what the key decided, and who asked."""

from wmplug.serving.log import Log
from wmplug.serving.middleware import Middleware, customer_name
from wmplug.serving.record import commit
from wmplug.serving.service import Cost, Serving
from wmplug.serving.tracing import by_customer, trace
from wmplug.serving.wrappers import wrap
from wmplug.watermark.decided import Decided

__all__ = ["Cost", "Decided", "Log", "Middleware", "Serving", "by_customer", "commit", "customer_name", "trace", "wrap"]
