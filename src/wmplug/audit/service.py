"""A service as its customers know it: what it was asked, and what it answered."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wmplug.audit.copyist import askings
from wmplug.audit.setting import Setting
from wmplug.errors import InputError


class ServiceAnswers(nn.Module):
    """A table of answers. It holds neither the served model nor a key, so it may go to other processes.

    Args:
        inputs: (n, ...) asked, as the model takes them.
        scores: (n, classes) answered.

    Raises:
        InputError: there is not one answer for each input.
    """

    inputs: torch.Tensor
    scores: torch.Tensor

    def __init__(self, inputs: torch.Tensor, scores: torch.Tensor) -> None:
        super().__init__()
        if scores.ndim != 2 or len(scores) != len(inputs):
            raise InputError(f"scores have shape {tuple(scores.shape)} for {len(inputs)} inputs: give a row for each")
        self.register_buffer("inputs", inputs)
        self.register_buffer("scores", scores)
        self.rows = {key: row for row, key in enumerate(_keys(inputs))}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (n, classes).

        Raises:
            InputError: the service was never asked one of the inputs.
        """
        rows = [self.rows.get(key, -1) for key in _keys(x)]
        if missing := rows.count(-1):
            raise InputError(
                f"the service was never asked {missing} of these {len(x)} inputs: give Setting(service=) all "
                "that the attack asks"
            )
        return self.scores[rows]


def ask_service(setting: Setting, answer: Callable[[torch.Tensor], Any]) -> Setting:
    """The setting of attackers who know a service by its answers: it is asked here all that wmplug's attacks ask.

    Call it in the process that holds the key.

    Args:
        setting: its queries are asked, also under `majority`'s noise, and its inputs outside the task.
        answer: from (n, ...) inputs as the model takes them to the scores (n, classes) that are served.
    """
    asked = [setting.asked, *askings(setting), *([] if setting.others is None else [setting.others])]
    answered = [torch.as_tensor(answer(inputs)) for inputs in asked]
    return dataclasses.replace(setting, service=ServiceAnswers(torch.cat(asked), torch.cat(answered)))


def _keys(inputs: torch.Tensor) -> list[bytes]:
    return [row.tobytes() for row in inputs.detach().cpu().numpy()]
