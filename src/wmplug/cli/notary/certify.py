"""`wmplug notary certify`: the certificate that the notary publishes."""

from wmplug.cli.notary.options import KEYS, CaseFolder, Keys
from wmplug.cli.terminal import Json, err, out, passphrase, print_json


def certify(folder: CaseFolder, keys: Keys = KEYS, as_json: Json = False) -> None:
    """Notary: write the public, signed certificate of a case that was heard."""
    from wmplug.register.notary.identity import Notary
    from wmplug.report import certificate

    holder = Notary.open(keys, passphrase=passphrase())
    document, page = certificate.certify(holder, folder)
    if as_json:
        return print_json({"json": str(document), "html": str(page)})
    out.print(str(page), str(document), sep="\n")
    err.print("Both are public. The other files of the case are not: keep them under lock.")
