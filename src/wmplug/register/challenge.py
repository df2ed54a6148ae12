"""The choice of draws to ask, by two nonces; both parties commit before either reveals.

The indices follow from Merkle root, case and both nonces. So the owner chooses nothing, and neither notary nor opponent
can choose alone: each fixes a part before the other part is known.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wmplug.errors import NotaryError
from wmplug.keys.files import read_json
from wmplug.keys.streams import KeyStream

PARTIES = ("notary", "opponent")
SCHEMA = "wmplug/challenge/1"
LEAST = 16  # bytes of a nonce


def commitment(case_sha256: str, party: str, nonce: bytes) -> str:
    """SHA-256 in hex over a domain tag and the RFC 8785 form of case, party and nonce.

    It binds the case file, so that nobody can edit the case afterwards; and the party, so that neither can answer with
    the other's commitment.

    Raises:
        NotaryError: the party is unknown, or the nonce has fewer than 16 bytes.
    """
    _check_party(party)
    if len(nonce) < LEAST:
        raise NotaryError(
            f"the nonce of the {party} has {len(nonce)} bytes, so it could be guessed from its commitment: give at "
            f"least {LEAST} random bytes"
        )
    sealed = rfc8785.dumps({"case": case_sha256, "party": party, "nonce": nonce.hex()})
    return hashlib.sha256(b"wmplug/nonce/1\x00" + sealed).hexdigest()


def _check_party(party: str) -> None:
    if party not in PARTIES:
        raise NotaryError(f"{party!r} takes no part in a challenge: these do: {', '.join(PARTIES)}")


@dataclass(frozen=True)
class Challenge:
    """The commitments and nonces so far.

    Attributes:
        case: id of the case.
        case_sha256: digest of the case file, hex.
        root: Merkle root of the triggers, hex.
        commitments: party -> hex.
        nonces: party -> hex.

    Raises:
        NotaryError: a nonce does not fit its commitment, or came before both commitments.
    """

    case: str
    case_sha256: str
    root: str
    commitments: Mapping[str, str] = field(default_factory=dict)
    nonces: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for party in (*self.commitments, *self.nonces):
            _check_party(party)
        if self.nonces and (missing := [party for party in PARTIES if party not in self.commitments]):
            raise NotaryError(
                f"a nonce was revealed before the {' and the '.join(missing)} had committed to one: open a new case, "
                "the party that commits last could choose the questions"
            )
        for party, nonce in self.nonces.items():
            if commitment(self.case_sha256, party, _bytes(nonce)) != self.commitments[party]:
                raise NotaryError(
                    f"the nonce of the {party} does not fit the commitment: it is another nonce, or the case file was "
                    "edited since; ask that party again, or open a new case"
                )

    def committed(self, party: str, digest: str) -> "Challenge":
        """The challenge with one more commitment.

        Raises:
            NotaryError: `digest` is not a commitment, or another one binds the party.
        """
        _check_party(party)
        if len(_bytes(digest)) != 32:
            raise NotaryError(f"{digest!r} is not a commitment: give 64 hex digits")
        if self.commitments.get(party, digest) != digest:
            raise NotaryError(f"the {party} has committed to a nonce already, and stays bound by it: open a new case")
        if digest in self.commitments.values() and party not in self.commitments:
            raise NotaryError(f"the {party} gave the other's commitment: each party makes a nonce of its own")
        return replace(self, commitments={**self.commitments, party: digest})

    def revealed(self, party: str, nonce: bytes) -> "Challenge":
        """The challenge with one more nonce.

        Raises:
            NotaryError: the nonce does not fit, or a commitment is missing.
        """
        _check_party(party)
        return replace(self, nonces={**self.nonces, party: nonce.hex()})

    def draw(self, among: Sequence[int], take: int) -> list[int]:
        """Draw some numbers without replacement, as root, case and nonces determine; in the order drawn.

        Args:
            among: numbers to choose from, in ascending order.
            take: how many to draw.

        Raises:
            NotaryError: a nonce is missing, or `among` is too short.
        """
        if missing := [party for party in PARTIES if party not in self.nonces]:
            raise NotaryError(
                f"the {' and the '.join(missing)} {'have' if len(missing) > 1 else 'has'} not revealed a nonce yet: "
                "nothing can be drawn before both have"
            )
        if not 1 <= take <= len(among):
            raise NotaryError(f"{take} cannot be drawn among {len(among)}: give 1 to {len(among)}")
        facts = rfc8785.dumps(
            {"root": self.root, "case": self.case, "case_sha256": self.case_sha256, "nonces": dict(self.nonces)}
        )
        seed = HKDF(hashes.SHA256(), 32, None, b"wmplug/1/challenge").derive(facts)
        return [among[i] for i in KeyStream(seed).permutation(len(among))[:take]]

    def to_json(self) -> dict[str, Any]:
        """The content of challenge.json."""
        return {
            "schema": SCHEMA,
            "case": self.case,
            "case_sha256": self.case_sha256,
            "root": self.root,
            "commitments": dict(self.commitments),
            "nonces": dict(self.nonces),
        }

    @classmethod
    def from_json(cls, document: Any) -> "Challenge":
        """Read a challenge that `to_json` wrote.

        Raises:
            NotaryError: the document is not a challenge, or was edited.
        """
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r}")
            case, case_sha256, root = (document[name] for name in ("case", "case_sha256", "root"))
            if not all(isinstance(text, str) for text in (case, case_sha256, root)):
                raise TypeError("case, case_sha256 and root are texts")
            return cls(case, case_sha256, root, dict(document["commitments"]), dict(document["nonces"]))
        except (KeyError, TypeError, ValueError) as error:
            raise NotaryError(
                f"this is not a challenge ({type(error).__name__}: {error}): open the case again"
            ) from None

    @classmethod
    def read(cls, file: Path) -> "Challenge":
        """Read one from a file.

        Raises:
            NotaryError: the file does not exist, is not a challenge, or was edited.
        """
        try:
            document = read_json(file)
        except (OSError, ValueError) as error:
            raise NotaryError(f"{file} cannot be read ({error}): open a case (`wmplug notary challenge`)") from None
        return cls.from_json(document)


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        raise NotaryError(f"{text!r} is not hexadecimal: give what the command printed") from None
