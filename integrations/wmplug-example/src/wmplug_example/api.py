"""A model behind HTTP as a suspect: it gets rows of numbers, and returns their labels."""

import json
import urllib.request

import numpy as np

from wmplug import SuspectError

PREFIX = "rows+"  # rows+http://host/path; a plain URL may be another plugin's


class Api:
    """A service that takes `{"rows": [[...], ...]}` and returns `{"labels": [...]}`.

    Nothing is sent before `answer`, since wmplug also makes suspects to see whether a plugin knows a text.

    Args:
        target: `rows+` and the service's URL.
        batch_size: rows in one request.
    """

    def __init__(self, target: str, batch_size: int = 64) -> None:
        self.description = target
        self._url, self._batch_size = target.removeprefix(PREFIX), batch_size

    def answer(self, inputs):
        """Labels (n,) for n rows.

        Raises:
            SuspectError: the service does not answer, or not with labels.
        """
        parts = [inputs[i : i + self._batch_size] for i in range(0, len(inputs), self._batch_size)]
        return np.array([label for part in parts for label in self._ask(part)])

    def _ask(self, rows):
        body = json.dumps({"rows": np.asarray(rows).tolist()}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                labels = json.load(response)["labels"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SuspectError(f"{self._url} returned no labels ({error}): check that the service runs") from error
        if len(labels) != len(rows):
            raise SuspectError(
                f"{self._url} returned {len(labels)} labels for {len(rows)} rows: let it return one for each"
            )
        return labels
