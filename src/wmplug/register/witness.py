"""The making of a watermark's key with a register: first a commitment to the secret, then the key.

    secret.committed    C = SHA-256(domain, S, r), and the digest of scheme, parameters, carriers and labels
    anchor              a timestamp token T over it, where the policy names an authority
    (derived)           salt from T;  K = HKDF(S, salt, id);  inputs, candidates and answers follow from K alone
                        with preprocess=, inputs follow from HKDF(S, no salt, id), and the root over what it makes of
                        them stands in secret.committed: answers alone follow from K
    triggers.committed  Merkle root of the triggers, anchored in turn

A search for a key that happens to fit somebody's model would leave a commitment and a token of each try.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from wmplug.errors import EvidenceWarning, RegisterError, TimestampError
from wmplug.keys.files import write_new
from wmplug.keys.owner import Owner, Pledge
from wmplug.register import Entry, Register, Signer
from wmplug.tasks import public as tasks


class Witness:
    """Records one watermark while it is made.

    Args:
        owner: the owner of the register.

    Raises:
        RegisterError: the register cannot be written.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner, self.register = owner, Register.of(owner)

    @classmethod
    def of(cls, owner: Owner) -> "Witness | None":
        """The witness of an owner with a register; None for an owner without one.

        Raises:
            RegisterError: the register cannot be written.
        """
        return cls(owner) if (owner.path / "owner.pub").is_file() else None

    def evidence(self, watermark: str, pledge: Pledge, prepared: Callable[[], str | None]) -> dict[str, Any]:
        """The public record of a key's origin: the commitment to its secret, and the salt of the token over it.

        Args:
            watermark: public id, a digest of everything that its triggers follow from, except the key.
            pledge: the origin of its key.
            prepared: returns the root over its prepared inputs, if there is one; called before a first commitment.

        Raises:
            RegisterError: the register cannot be written.
        """
        done = self._entry("triggers.committed", watermark)
        return self._anchored(watermark, pledge, prepared) if done is None else dict(done.body["evidence"])

    def _entry(self, kind: str, watermark: str) -> Entry | None:
        entries = (e for e in self.register.entries() if e.type == kind and e.body.get("watermark") == watermark)
        return next(entries, None)

    def keys(self, watermark: str) -> int:
        """Number of secrets that the register commits to once this watermark's is among them."""
        every = {e.body.get("watermark") for e in self.register.entries() if e.type == "secret.committed"}
        return len(every | {watermark})

    def pledge(self, watermark: str) -> Pledge:
        """The origin of a watermark's key. The register holds one: made again, the watermark has the same key.

        Raises:
            RegisterError: the register was written with a secret that is lost.
        """
        pledges = self.owner.pledges(watermark)
        committed = self._entry("secret.committed", watermark)
        if committed is None:
            return pledges[0]
        for pledge in pledges:
            if pledge.commitment == committed.body["commitment"]:
                return pledge
        raise RegisterError(
            f"entry {committed.seq} commits watermark {watermark} to a secret that this owner does not hold: open the "
            "owner that made it, or restore secret/owner.enc from a copy"
        )

    def _anchored(self, watermark: str, pledge: Pledge, prepared: Callable[[], str | None]) -> dict[str, Any]:
        body: dict[str, Any] = {"watermark": watermark, "commitment": pledge.commitment}
        if self._entry("secret.committed", watermark) is None and (root := prepared()) is not None:
            body["prepared"] = root
        entry = self.register.append("secret.committed", body, event_id=f"secret/{watermark}")
        salt, lab = None, False
        if self.register.has_authorities:
            try:
                from wmplug.register import anchors

                salt, lab = anchors.salt_after(self.register, entry.seq)
            except TimestampError as error:
                warnings.warn(
                    f"watermark {watermark} is NOT ATTESTED: no authority gave a timestamp before its key was made "
                    f"({error}), so the key might have been made to fit. For one that is attested, make "
                    "another when the authority answers (with other parameters: this one keeps its key)",
                    EvidenceWarning,
                    stacklevel=4,
                )
        return {
            "register": self.register.id,
            "secret_committed": entry.seq,
            "salt": None if salt is None else salt.hex(),
            "lab": lab,
            **({"prepared": entry.body["prepared"]} if "prepared" in entry.body else {}),
        }

    def committed(self, public: Mapping[str, Any]) -> bytes:
        """Record the triggers' root, keep the public line in `commit/`, and anchor it.

        Args:
            public: public line of the watermark.

        Returns:
            The signing seed (32 bytes) of the key that signs this watermark's runs in the register.

        Raises:
            RegisterError: the register cannot be written.
        """
        watermark = public["id"]
        seeds = {Signer(seed).public.hex(): seed for seed in self.owner.signing_seeds(watermark)}
        recorder = next(iter(seeds))
        kept = ("root", "rows", "draws", "triggers", *tasks.KEYS, "scheme", "scheme_version", "generator", "evidence")
        body = {"watermark": watermark, "recorder": recorder, **{name: public[name] for name in kept if name in public}}
        entry = self.register.append(
            "triggers.committed", body, subject=[("triggers", public["root"])], event_id=f"triggers/{watermark}"
        )
        folder = self.register.path / "commit"
        folder.mkdir(exist_ok=True)
        write_new(folder / f"{watermark}.json", (json.dumps(public, indent=1) + "\n").encode(), 0o644)
        if self.register.has_authorities:
            from wmplug.register import anchors

            anchors.attempt(self.register)
        return seeds[entry.body["recorder"]]  # of a former root, if the owner has rotated since
