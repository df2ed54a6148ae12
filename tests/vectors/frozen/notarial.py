"""What is done with a frozen watermark before a notary, by whoever makes the fixtures and by whoever compares them."""

import hashlib
import json

from vectors.frozen import acts, cases, facts

from wmplug.register import Register, Signer, disclosure
from wmplug.register.challenge import Challenge, commitment
from wmplug.register.notary.case import Case, Model
from wmplug.register.notary.hearing import check, draw_rows, open_case, save_challenge
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.package import prepare

# Of a result, what differs from hearing to hearing, or is written for people; and what the first release did not state.
SPOKEN = ("verifier", "claimed_time", "reasons", "checks")
LATER = ("rows_known", "suspect_since", "preprocess", "notaries", "revocation_lists")


def begun(mark):
    """Put the start of training on record, without which no claim holds."""
    started = {"watermark": mark.id, "run": "0" * 32, "adapter": "none", "versions": {}, "dataset": None}
    register = Register(mark.register, Signer(mark.signing_seed()))
    register.append("training.started", {**started, "parameters": 0, "architecture": 0})


def notary_in(folder):
    return Notary.open(folder / "notary", passphrase=cases.PASSPHRASE)


def targets(mark):
    """A suspect that knows all answers, the owner's own, and one that knows none."""
    knowing = {"suspect": "all", "own": "all", "control": "none"}
    return {name: cases.without_source(acts.knowing(mark, what), name.title()) for name, what in knowing.items()}


def hear(owner, mark, folder):
    """Make a notary, seal the claim, fix a case and hear it."""
    notary = Notary.create(folder / "notary", name="Nora", passphrase=cases.PASSPHRASE, scrypt_n=2**10)
    sealed = prepare(
        owner,
        mark.public,
        folder / "claim.age",
        recipient=notary.recipient,
        case=cases.CASE,
        carriers=cases.squares(),
    )
    fixed(mark, sealed, folder / "case")
    return heard(mark, folder)


def fixed(mark, sealed, folder):
    """Write the case and its challenge."""
    save_challenge(folder, both(open_case(folder, case_of(mark, sealed), mark.task.count)))


def case_of(mark, sealed):
    return Case(
        case=cases.CASE,
        watermark=mark.id,
        root=mark.public["root"],
        package=hashlib.sha256(sealed.read_bytes()).hexdigest(),
        models=tuple(
            Model(name, name if name != "control" else "control", f"here:{name}", "made for this test", {})
            for name in targets(mark)
        ),
        draws=12,
        decoys=9,
        strength=30,
    )


def both(challenge, nonces=cases.NONCES):
    """With the commitments and nonces of both parties."""
    for party, nonce in nonces.items():
        challenge = challenge.committed(party, commitment(challenge.case_sha256, party, nonce))
    for party, nonce in nonces.items():
        challenge = challenge.revealed(party, nonce)
    return challenge


def heard(mark, folder):
    """Hear the case in a folder; its result without what differs from hearing to hearing."""
    result = check(notary_in(folder), folder / "case", folder / "claim.age", targets(mark))
    kept = {name: value for name, value in result.items() if name not in (*SPOKEN, *LATER)}
    for model in kept["models"]:
        model["verdict"].pop("choices", None)
    return facts.plain({**kept, "checks": [[one["name"], one["result"]] for one in result["checks"]]})


def challenge_for(mark, case="another"):
    return both(Challenge(case, "ab" * 32, mark.public["root"]))


def drawn_rows(mark):
    """The rows that fixed nonces draw, and all that they draw from numbers."""
    challenge = challenge_for(mark)
    return {
        "commitments": dict(challenge.commitments),
        "numbers": challenge.draw(list(range(100, 140)), 12),
        "rows": draw_rows(mark, frozenset(), challenge, 3),
        "left": draw_rows(mark, frozenset(facts.facts(mark)["groups"][0]), challenge, 2),
    }


def shown(owner, mark, folder):
    """Write the leaves that are shown to everybody into `shown.json`; returns their rows."""
    document = disclosure.reveal(Register.of(owner), mark, challenge_for(mark), 4)
    (folder / "shown.json").write_text(json.dumps(document) + "\n")
    return [one["leaf"]["i"] for one in document["leaves"]]


def checked(folder):
    """What everybody finds of these leaves: input and answer."""
    document = json.loads((folder / "shown.json").read_text())
    register = Register(folder / "register")
    committed = next(one.body for one in register.entries() if one.type == "triggers.committed")
    spent = disclosure.spent_in(register, document["watermark"], before=document["case"])
    left = [row for row in range(document["n"]) if row not in spent]
    return [[facts.seen(x), y] for x, y in disclosure.check_revealed(document, committed, spent=spent, among=left)]
