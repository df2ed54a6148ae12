"""What the scores of a model's head are, and one score an input, of two classes, as two logits and back."""

from typing import Any

import keras
from keras import ops, tree

_ENDS = {"sigmoid": True, "hard_sigmoid": True, "linear": False}
_PASSING = {"Flatten", "Reshape", "Squeeze", "Identity", "Dropout"}


def is_single(output: Any, classes: int) -> bool:
    """Whether this is one score an input, (B, 1) or (B,), of a model of two classes."""
    shape = tuple(output.shape)
    return classes == 2 and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def squashes(model: Any) -> bool | None:
    """Whether a sigmoid makes each score of the model; False if the scores are logits or a softmax made them.

    The last layer shows it, or the loss that the model is compiled with; None if neither does.
    """
    end = _end(model)
    return _of_loss(getattr(model, "loss", None)) if end is None else end


def from_logits(loss: Any) -> bool:
    """Whether the loss that a model is compiled with reads logits."""
    losses = [one for one in tree.flatten(loss) if one is not None]
    return len(losses) == 1 and bool(getattr(losses[0], "from_logits", False))


def logits_of(output: Any, *, raw: bool, squashed: bool, single: bool) -> Any:
    """(B, classes) logits of a model's output, 0 for class 0 where it is one score an input.

    Args:
        output: (B, classes), (B, 1) or (B,).
        raw: whether the output is logits.
        squashed: else whether a sigmoid made each, or a softmax all together.
        single: whether it is one score an input.
    """
    least = keras.config.epsilon()
    if not raw and squashed:
        output = ops.clip(output, least, 1.0 - least)
        output = ops.log(output) - ops.log(1.0 - output)
    elif not raw:
        output = ops.log(ops.clip(output, least, 1.0))
    if not single:
        return output
    score = ops.reshape(output, (-1,))
    return ops.stack([ops.zeros_like(score), score], axis=1)


def output_of(logits: Any, like: Any, *, raw: bool, squashed: bool, single: bool) -> Any:
    """The output whose `logits_of` these are, with the shape and dtype of `like`."""
    if single:
        logits = ops.reshape(logits[:, 1] - logits[:, 0], ops.shape(like))
    made = logits if raw else ops.sigmoid(logits) if squashed else ops.softmax(logits)
    return ops.cast(made, like.dtype)


def numbers_of(labels: Any, classes: int) -> Any:
    """(B,) class numbers of labels (B,), (B, 1) or (B, classes); a share of class 1 is rounded."""
    if len(labels.shape) == 2 and labels.shape[1] == classes:
        return ops.argmax(labels, axis=1)
    labels = ops.reshape(labels, (-1,))
    return ops.round(labels) if "float" in keras.backend.standardize_dtype(labels.dtype) else labels


def _end(model: Any) -> bool | None:
    """What the last layer shows, through layers that only reshape."""
    outputs = tree.flatten(getattr(model, "outputs", None) or [])
    tensor = outputs[0] if len(outputs) == 1 else None
    while (history := getattr(tensor, "_keras_history", None)) is not None:
        last, name = history.operation, type(history.operation).__name__
        if isinstance(last, keras.Model):
            return _end(last)
        if name in _PASSING:
            tensor = last._inbound_nodes[history.node_index].input_tensors[0]
            continue
        activation = getattr(last, "activation", None)
        return _ENDS.get(name.lower() if activation is None else getattr(activation, "__name__", ""))
    return None


def _of_loss(loss: Any) -> bool | None:
    """What the loss shows: binary cross-entropy reads logits, or what a sigmoid made."""
    losses = [one for one in tree.flatten(loss) if one is not None]
    if len(losses) != 1:
        return None
    name = losses[0] if isinstance(losses[0], str) else getattr(losses[0], "__name__", type(losses[0]).__name__)
    return not from_logits(loss) if "binary" in name.lower().replace("_", "") else None
