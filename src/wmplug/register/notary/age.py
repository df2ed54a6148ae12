"""Encryption to somebody's public key: the age format, X25519 recipients."""

from wmplug.errors import NotaryError
from wmplug.extras import need

with need("evidence"):
    import pyrage
    from pyrage import x25519


def new_identity() -> tuple[str, str]:
    """A secret identity (AGE-SECRET-KEY-1...) and its public recipient (age1...)."""
    identity = x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def seal(data: bytes, recipient: str) -> bytes:
    """Encrypt for one recipient.

    Raises:
        NotaryError: `recipient` is not a public key of age.
    """
    try:
        sealed: bytes = pyrage.encrypt(data, [x25519.Recipient.from_str(recipient)])
    except pyrage.RecipientError as error:
        raise NotaryError(
            f"{recipient!r} is not the public key of a notary ({error}): give the age1... text that `wmplug notary "
            "key` printed"
        ) from None
    return sealed


def unseal(data: bytes, identity: str, where: str) -> bytes:
    """Decrypt.

    Raises:
        NotaryError: the data were sealed to another key, or were truncated or edited.
    """
    try:
        opened: bytes = pyrage.decrypt(data, [x25519.Identity.from_str(identity)])
    except pyrage.DecryptError as error:
        raise NotaryError(
            f"{where} cannot be opened ({error}): it was sealed to another notary's key, or truncated or edited; ask "
            "the owner for it again"
        ) from None
    return opened
