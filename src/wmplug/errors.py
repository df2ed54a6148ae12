"""The errors of wmplug, one small hierarchy; each message reports what was received, why it fails and what to do."""


class WmplugError(Exception):
    """Base of all errors: wmplug refuses something, or cannot do it."""


class InputError(WmplugError, ValueError):
    """Carriers, labels, triggers or options that do not fit."""


class StatisticsError(WmplugError, ValueError):
    """Arguments for which a test is not defined."""


class KeyFileError(WmplugError):
    """A secret file that cannot be opened, read or trusted."""


class WrongPassphraseError(KeyFileError):
    """The passphrase does not open this file."""


class NewerVersionError(KeyFileError):
    """The file was written by a newer wmplug than this one."""


class SuspectError(WmplugError):
    """A suspect cannot be asked, or its answers cannot be read."""


class InjectionError(WmplugError):
    """Triggers cannot reach training, or did not reach it."""


class DivergenceError(WmplugError):
    """Training broke the weights of a model while a scheme took part in its loss."""


class VerificationError(WmplugError):
    """A checkpoint does not carry the watermark, and on_failure="raise" stops the training."""


class ServingError(WmplugError):
    """The log of a serving cannot be opened, read or written; or a serving stops, as its owner chose."""


class PluginError(WmplugError):
    """A plugin that is missing, broken or ambiguous."""


class RegisterError(WmplugError):
    """A register that cannot be read, written or trusted."""


class CorruptEntryError(RegisterError):
    """An entry of a log differs from the one that was written.

    Attributes:
        seq: number of the entry, counted from 0.
        offset: position of its first byte in the log.
        code: the fault, in kebab-case.
    """

    def __init__(self, message: str, *, seq: int, offset: int, code: str) -> None:
        super().__init__(message)
        self.seq, self.offset, self.code = seq, offset, code


class TimestampError(RegisterError):
    """A timestamp is unavailable, or does not hold.

    Attributes:
        code: the fault, in kebab-case.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class NotaryError(RegisterError):
    """A claim that a notary must refuse."""


class EvidenceWarning(UserWarning):
    """wmplug goes on without a record, or with one that proves less."""


class InjectionWarning(UserWarning):
    """Triggers reach training, but perhaps not as intended."""


class AmbiguityWarning(UserWarning):
    """The task leaves a scheme hardly any room: unmarked models agree on almost all answers."""


class VerificationWarning(UserWarning):
    """A checkpoint does not carry the watermark, and on_failure="warn" reports it."""


class ServingWarning(UserWarning):
    """A serving answers unmarked."""
