"""Commitment to the training parameters: the framework's own arguments object as a canonical document."""

from __future__ import annotations

from typing import Any

from wmplug.errors import InputError
from wmplug.register.assets.documents import canonical_digest, class_name, document


def parameters(arguments: Any) -> dict[str, Any]:
    """Commit to training parameters.

    This replaces by "removed", before it hashes anything, any value whose key looks like that of a secret (token,
    password, secret, key, credential, ...), and any text that holds one (a URL with a password, a known form of access
    token).

    Args:
        arguments: TrainingArguments or anything else with `to_dict`, a dataclass, an argparse.Namespace, a Keras
            optimizer or compiled model, a torch optimizer (without its tensors), or a mapping, of such objects too.

    Returns:
        The body of `parameters.committed`: kind, class, document, sha256 (of its canonical JSON, RFC 8785), removed.

    Raises:
        InputError: `arguments` holds no settings, or contains itself.
    """
    plain, removed = document(arguments)
    if not isinstance(plain, dict) or set(plain) == {"repr"}:
        raise InputError(
            f"the training parameters are a {class_name(arguments)}: give the framework's arguments object, a "
            "dataclass, an argparse.Namespace or a dict"
        )
    return {
        "kind": "parameters",
        "class": class_name(arguments),
        "document": plain,
        "sha256": canonical_digest(plain),
        "removed": removed,
    }
