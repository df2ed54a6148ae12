"""The errors of wmplug: one small hierarchy, each message says what was received, why it fails and what to do."""


class WmplugError(Exception):
    """Anything that wmplug refuses or cannot do."""


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
    """A suspect that cannot be asked, or whose answers cannot be read."""


class InjectionError(WmplugError):
    """Triggers cannot be put, or were not put, into training."""


class DivergenceError(WmplugError):
    """Training broke the weights of a model while a scheme took part in its loss."""


class VerificationError(WmplugError):
    """A checkpoint did not carry the watermark and the user asked to be stopped for it."""


class PluginError(WmplugError):
    """A plugin that is missing, broken or ambiguous."""


class RegisterError(WmplugError):
    """A register that cannot be read, written or trusted."""


class CorruptEntryError(RegisterError):
    """An entry of a log that is not what was written.

    Attributes:
        seq: number of the entry, counted from 0.
        offset: of its first byte in the log.
        code: what is wrong with it, in kebab-case.
    """

    def __init__(self, message: str, *, seq: int, offset: int, code: str) -> None:
        super().__init__(message)
        self.seq, self.offset, self.code = seq, offset, code


class TimestampError(RegisterError):
    """A timestamp that cannot be had, or is not to be believed.

    Attributes:
        code: what is wrong with it, in kebab-case.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class NotaryError(RegisterError):
    """A claim that a notary has to refuse."""


class EvidenceWarning(UserWarning):
    """Something goes on without a record of it, or with one that proves less."""


class InjectionWarning(UserWarning):
    """Triggers reach training, but perhaps not as they should."""


class AmbiguityWarning(UserWarning):
    """The task leaves so little freedom that a scheme will hardly find room in it."""


class VerificationWarning(UserWarning):
    """A checkpoint did not carry the watermark and the user asked to be told."""
