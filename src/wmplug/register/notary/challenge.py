"""Which draws are asked: chosen by two nonces, each committed to before either is revealed.

The indices follow from Merkle root, case and both nonces. So the owner chooses nothing, and neither notary nor opponent
can choose alone: each fixed his part before he knew the other's.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wmplug.errors import NotaryError
from wmplug.keys.streams import KeyStream

PARTIES = ("notary", "opponent")
SCHEMA = "wmplug/challenge/1"
LEAST = 16  # bytes of a nonce


def commitment(case_sha256: str, party: str, nonce: bytes) -> str:
    """SHA-256 in hex over a domain tag and the RFC 8785 form of case, party and nonce.

    Bound to the case file, so that the case cannot be edited afterwards; and to the party, so that nobody can answer
    with the other's commitment.

    Raises:
        NotaryError: no such party, or fewer than 16 bytes.
    """
    _check_party(party)
    if len(nonce) < LEAST:
        raise NotaryError(
            f"the nonce of the {party} has {len(nonce)} bytes: at least {LEAST} random ones are needed, or it could be "
            "found from its commitment by trying"
        )
    said = rfc8785.dumps({"case": case_sha256, "party": party, "nonce": nonce.hex()})
    return hashlib.sha256(b"wmplug/nonce/1\x00" + said).hexdigest()


def _check_party(party: str) -> None:
    if party not in PARTIES:
        raise NotaryError(f"{party!r} takes no part in a challenge: these do: {', '.join(PARTIES)}")


@dataclass(frozen=True)
class Challenge:
    """Commitments and nonces, as far as they are there.

    Attributes:
        case: its id.
        case_sha256: of the case file.
        root: Merkle root of the triggers, hex.
        commitments: party -> hex.
        nonces: party -> hex.

    Raises:
        NotaryError: a nonce that does not fit its commitment, or came before both commitments.
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
                "whoever comes last here could choose the questions"
            )
        for party, nonce in self.nonces.items():
            if commitment(self.case_sha256, party, _bytes(nonce)) != self.commitments[party]:
                raise NotaryError(
                    f"the nonce of the {party} does not fit what he committed to: it is another one, or the case file "
                    "was edited since; ask him again, or open a new case"
                )

    def committed(self, party: str, digest: str) -> "Challenge":
        """With one more commitment.

        Raises:
            NotaryError: it is none, or the party is bound by another.
        """
        _check_party(party)
        if len(_bytes(digest)) != 32:
            raise NotaryError(f"{digest!r} is no commitment: 64 hex digits are needed")
        if self.commitments.get(party, digest) != digest:
            raise NotaryError(f"the {party} has committed to a nonce already, and stays bound by it: open a new case")
        if digest in self.commitments.values() and party not in self.commitments:
            raise NotaryError(f"the {party} gave the other's commitment: he has to make a nonce of his own")
        return replace(self, commitments={**self.commitments, party: digest})

    def revealed(self, party: str, nonce: bytes) -> "Challenge":
        """With one more nonce.

        Raises:
            NotaryError: it does not fit, or a commitment is missing.
        """
        _check_party(party)
        return replace(self, nonces={**self.nonces, party: nonce.hex()})

    def draw(self, among: Sequence[int], take: int) -> list[int]:
        """`take` of some numbers, without replacement, as root, case and nonces have it; in the order drawn.

        Args:
            among: numbers to choose from, in ascending order.
            take: how many.

        Raises:
            NotaryError: a nonce is missing, or there are fewer.
        """
        if missing := [party for party in PARTIES if party not in self.nonces]:
            raise NotaryError(
                f"the {' and the '.join(missing)} {'have' if len(missing) > 1 else 'has'} not revealed a nonce yet: "
                "nothing can be drawn before both have"
            )
        if not 1 <= take <= len(among):
            raise NotaryError(f"{take} cannot be drawn among {len(among)}: give 1 to {len(among)}")
        said = rfc8785.dumps(
            {"root": self.root, "case": self.case, "case_sha256": self.case_sha256, "nonces": dict(self.nonces)}
        )
        seed = HKDF(hashes.SHA256(), 32, None, b"wmplug/1/challenge").derive(said)
        return [among[i] for i in KeyStream(seed).permutation(len(among))[:take]]

    def to_json(self) -> dict[str, Any]:
        """What is written to challenge.json."""
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
        """Read what `to_json` wrote.

        Raises:
            NotaryError: it is none, or was edited.
        """
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r}")
            case, case_sha256, root = (document[name] for name in ("case", "case_sha256", "root"))
            if not all(isinstance(text, str) for text in (case, case_sha256, root)):
                raise TypeError("case, case_sha256 and root are texts")
            return cls(case, case_sha256, root, dict(document["commitments"]), dict(document["nonces"]))
        except (KeyError, TypeError, ValueError) as error:
            raise NotaryError(f"this is no challenge ({type(error).__name__}: {error}): open the case anew") from None

    @classmethod
    def read(cls, file: Path) -> "Challenge":
        """Read one from a file.

        Raises:
            NotaryError: it is not there, is none, or was edited.
        """
        try:
            document = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise NotaryError(f"{file} cannot be read ({error}): open a case (`wmplug notary challenge`)") from None
        return cls.from_json(document)


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        raise NotaryError(f"{text!r} is not hexadecimal: give what the command printed") from None
