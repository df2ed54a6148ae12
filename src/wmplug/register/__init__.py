"""The register: the owner's tamper-evident record of what was chosen and inserted when."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmplug import plugins
from wmplug.errors import RegisterError
from wmplug.keys.files import read_json
from wmplug.keys.owner import Owner, opening_of
from wmplug.register import ledger, rotation
from wmplug.register.checkpoint import Prefix
from wmplug.register.statements import Entry as Entry
from wmplug.register.statements import Signer as Signer


class Register:
    """One register's folder.

    Args:
        path: the folder.
        signer: signs new entries; without one the register is read-only.

    Attributes:
        id: the owner's commitment, 64 hex digits.

    Raises:
        RegisterError: the folder does not hold a register.
    """

    def __init__(self, path: str | Path, signer: Signer | None = None) -> None:
        self.path = Path(path)
        try:
            self.public: dict[str, Any] = read_json(self.path / "owner.pub")
            self.id = str(self.public["commitment"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegisterError(
                f"{self.path} is not a register ({type(error).__name__} at its owner.pub): make one with `wmplug init "
                "--register DIR --name NAME`, or check the path"
            ) from error
        self.log = self.path / ledger.LOG
        self._ledger = None if signer is None else ledger.Ledger(self.path, self.id, signer)

    @classmethod
    def of(cls, owner: Owner) -> "Register":
        """The owner's register, opened for writing; begins it if necessary.

        Raises:
            RegisterError: it cannot be written, or its owner has rotated since `owner` was opened.
        """
        if len(owner.roots()) > 1:  # the log names the one that signs
            return rotation.resume(owner, cls)
        signer = Signer(owner.signing_seed())
        register = cls(owner.path, signer)
        begun = {"name": owner.name, "public": signer.public.hex(), "opening": opening_of(owner.roots()[0])}
        first = next(register.entries(), None)
        if first is None:
            register.append("register.opened", begun, event_id="opened")
        elif first.body.get("public") != begun["public"] and not register._introduces(begun["public"]):
            raise RegisterError(
                f"{register.log} was begun with another key than its owner's: somebody else wrote it; restore the "
                "register from a copy"
            )
        return register

    def _introduces(self, public: str) -> bool:
        return any(entry.type == "key.rotated" and entry.body.get("public") == public for entry in self.entries())

    def append(
        self,
        kind: str,
        body: Mapping[str, Any],
        *,
        subject: Sequence[tuple[str, str]] = (),
        event_id: str | None = None,
    ) -> Entry:
        """Write one entry; when this returns it is on disk, and plugins have received it (`wmplug_event`).

        Args:
            kind: type of the event, one of `statements.TYPES`.
            body: a JSON object.
            subject: (name, SHA-256 in hex) of the thing that it is about.
            event_id: id of the event: a retry under the same id returns the existing entry.

        Raises:
            RegisterError: it could not be written, and nothing was; or the register was opened for reading.
        """
        if self._ledger is None:
            raise RegisterError(f"{self.path} was opened for reading: open it with its owner (Register.of)")
        entry, new = self._ledger.append(kind, body, subject, event_id)
        if new:
            event = {"type": kind, "seq": entry.seq, "hash": entry.hash, "register": self.id, "body": entry.body}
            plugins.registry().tell("wmplug_event", event={**event, "claimed_time": entry.claimed_time})
        return entry

    @property
    def has_authorities(self) -> bool:
        """Whether its policy names timestamp authorities (`policy.json`)."""
        return (self.path / "policy.json").exists()

    def entries(self, prefix: Prefix | None = None) -> Iterator[Entry]:
        """All entries, in order, with their links checked, but not their signatures (`checking.check` does that).

        Args:
            prefix: is told of every line (`ledger.read`).

        Raises:
            CorruptEntryError: an entry is damaged; raised at the first.
        """
        return ledger.read(self.log, prefix) if self.log.exists() else iter(())

    @property
    def head(self) -> Entry | None:
        """The last entry."""
        return next(iter(collections.deque(self.entries(), maxlen=1)), None)
