"""The notary's procedure: a neutral party compares a claim with the secret, and the secret stays secret.

    identity     the notary's keys                                       `wmplug notary key`
    package      what the owner seals to them                            `wmplug notary prepare`
    case         suspect, statistic, strength, controls, in writing      `wmplug notary challenge --open`
    challenge    nonces of notary and opponent choose what is asked      `wmplug notary challenge`
    inspection   the register, and all triggers derived anew
    hearing      questions, decoys, verdicts, outcome                    `wmplug notary check`
    queries      a served model's log as the questions, and what controls say about it
    software     what the notary checked with, by digest

`wmplug.report.certificate` makes the certificate.
"""
