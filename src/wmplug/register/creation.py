"""How a watermark's key is made where there is a register: first the secret is committed to, then the key follows.

    secret.committed    C = SHA-256(domain, S, r), and the digest of scheme, parameters, carriers and labels
    anchor              a timestamp token T over it, where the policy names an authority
    (derived)           salt from T;  K = HKDF(S, salt, id);  inputs, candidates and answers follow from K alone
    triggers.committed  Merkle root of the triggers, anchored in turn

Whoever wanted a key that happens to fit somebody's model would have to show a commitment and a token for each try.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

from wmplug import plugins
from wmplug.errors import EvidenceWarning, RegisterError, TimestampError
from wmplug.keys.files import write_new
from wmplug.keys.owner import Owner, Pledge
from wmplug.keys.streams import Subkeys
from wmplug.register import Entry, Register, Signer


class Witness:
    """Records one watermark while it is made.

    Args:
        owner: whose register it is.

    Raises:
        RegisterError: it cannot be written.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner, self.register = owner, Register.of(owner)

    def key(self, watermark: str, facts: Mapping[str, Any]) -> tuple[Subkeys, dict[str, Any]]:
        """The subkeys of a watermark, and what to say in public of how they came about.

        The same watermark is pledged once: made again, it has the key it had.

        Args:
            watermark: public id, a digest of the facts.
            facts: all that its triggers follow from but the key.

        Raises:
            RegisterError: the register cannot be written, or was written with a secret that is lost.
        """
        done = self._entry("triggers.committed", watermark)
        pledge = self._pledge(watermark)
        evidence = self._anchored(watermark, pledge) if done is None else dict(done.body["evidence"])
        salt = evidence["salt"]
        return pledge.subkeys(None if salt is None else bytes.fromhex(salt)), evidence

    def _entry(self, kind: str, watermark: str) -> Entry | None:
        found = (e for e in self.register.entries() if e.type == kind and e.body.get("watermark") == watermark)
        return next(found, None)

    def _pledge(self, watermark: str) -> Pledge:
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

    def _anchored(self, watermark: str, pledge: Pledge) -> dict[str, Any]:
        body = {"watermark": watermark, "commitment": pledge.commitment}
        entry = self.register.append("secret.committed", body, event_id=f"secret/{watermark}")
        salt, lab = None, False
        if self.register.has_authorities:
            try:
                salt, lab = plugins.load("wmplug.register.anchors:salt_after")(self.register, entry.seq)
            except TimestampError as error:
                warnings.warn(
                    f"watermark {watermark} is NOT ATTESTED: no timestamp could be had before its key was made "
                    f"({error}), so nobody can tell that the key was not made to fit. For one that is attested, make "
                    "another when the authority answers (with other parameters: this one keeps its key)",
                    EvidenceWarning,
                    stacklevel=4,
                )
        return {
            "register": self.register.id,
            "secret_committed": entry.seq,
            "salt": None if salt is None else salt.hex(),
            "lab": lab,
        }

    def committed(self, public: Mapping[str, Any]) -> bytes:
        """Record the triggers' root, keep the public line in `commit/`, and anchor it.

        Args:
            public: line of the watermark.

        Returns:
            The signing seed (32 bytes) of the key that the register takes for this watermark's runs.

        Raises:
            RegisterError: the register cannot be written.
        """
        watermark = public["id"]
        seeds = {Signer(seed).public.hex(): seed for seed in self.owner.signing_seeds(watermark)}
        recorder = next(iter(seeds))
        kept = ("root", "rows", "draws", "triggers", "classes", "scheme", "scheme_version", "generator", "evidence")
        body = {"watermark": watermark, "recorder": recorder, **{name: public[name] for name in kept}}
        entry = self.register.append(
            "triggers.committed", body, subject=[("triggers", public["root"])], event_id=f"triggers/{watermark}"
        )
        folder = self.register.path / "commit"
        folder.mkdir(exist_ok=True)
        write_new(folder / f"{watermark}.json", (json.dumps(public, indent=1) + "\n").encode(), 0o644)
        if self.register.has_authorities:
            plugins.load("wmplug.register.anchors:attempt")(self.register)
        return seeds[entry.body["recorder"]]  # of a former root, where the owner has rotated since
