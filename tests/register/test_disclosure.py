"""Triggers shown in public, with proof; how much they say; and that they are shown once."""

import base64
import copy
import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree
from scipy.stats import hypergeom

import wmplug
from wmplug import Owner
from wmplug.claim import verification
from wmplug.claim.questions import Answers
from wmplug.errors import InputError, NotaryError
from wmplug.keys import merkle
from wmplug.register import Register, checking
from wmplug.register.challenge import Challenge, commitment
from wmplug.register.disclosure import SCHEMA, check_revealed, confidence, reveal, shown_rows, spend, spent, spent_in
from wmplug.tasks import Said
from wmplug.watermark.carriers import digest
from wmplug.watermark.plan import hash_leaf

PASSPHRASE = "correct horse battery staple"


def drawn(root, case="c1", nonce=bytes(16)):
    challenge = Challenge(case, "ab" * 32, root)
    nonces = {"notary": nonce, "opponent": bytes(range(32))}
    for party, one in nonces.items():
        challenge = challenge.committed(party, commitment("ab" * 32, party, one))
    for party, one in nonces.items():
        challenge = challenge.revealed(party, one)
    return challenge


@pytest.fixture
def owned(tmp_path, digits):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    options = {"carriers": digits[0][:400], "labels": digits[1][:400], "classes": 10}
    return owner, wmplug.create(owner, scheme="random-label", **options), options


@pytest.fixture
def shown(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    document = json.loads(json.dumps(reveal(register, mark, drawn(mark.public["root"]), 20)))
    return register, mark, document, committed(register, mark)


def committed(register, mark):
    found = (e for e in register.entries() if e.type == "triggers.committed" and e.body["watermark"] == mark.id)
    return next(found).body


def test_twenty_of_a_hundred_say_eighty_eight():
    assert confidence(100, 20) == 88


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_confidence_is_the_exact_bound(n, data):
    m = data.draw(st.integers(0, n))
    level = data.draw(st.sampled_from([0.5, 0.9, 0.95, 0.99]))
    least = confidence(n, m, level)

    def luck(matching):
        return math.comb(matching, m) / math.comb(n, m)

    assert m <= least <= n
    assert least == n or luck(least) > 1 - level - 1e-12
    assert least == m or luck(least - 1) <= 1 - level + 1e-12
    assert confidence(n, n, level) == n


@given(st.integers(1, 60), st.data())
def test_confidence_with_misses_is_the_exact_bound(n, data):
    m = data.draw(st.integers(1, n))
    missed = data.draw(st.integers(0, m))
    least = confidence(n, m, missed=missed)
    chance = [hypergeom.cdf(missed, n, n - matching, m) for matching in range(n + 1)]
    assert m - missed <= least <= n - missed
    assert least == n - missed or chance[least] > 0.05 - 1e-9
    assert least == m - missed or chance[least - 1] <= 0.05 + 1e-9


def test_confidence_covers():
    rng = np.random.default_rng(5)
    for truth in (70, 85, 95):
        misses = 0
        for _ in range(2000):
            lucky = (rng.permutation(100)[:20] < truth).all()
            misses += bool(lucky and confidence(100, 20) > truth)
        assert misses / 2000 < 0.05


@pytest.mark.parametrize(
    ("n", "m", "level", "missed"),
    [(10, 11, 0.95, 0), (10, -1, 0.95, 0), (10, 5, 1.0, 0), (10, 5, 0, 0), (10, 5, 0.95, 6), (10, 5, 0.95, -1)],
)
def test_confidence_refuses(n, m, level, missed):
    with pytest.raises(InputError, match=f"{m} of {n} leaves, {missed} missed, at level {level}: give m from 0 to n"):
        confidence(n, m, level, missed=missed)


def test_confidence_at_its_edges():
    assert [confidence(10, 10), confidence(10, 0), confidence(0, 0), confidence(10, 10, missed=10)] == [10, 0, 0, 0]
    # One that does not match stays undrawn with a chance of one half: too small for luck at one half, not beyond.
    assert [confidence(2, 1, level) for level in (0.49, 0.5, 0.51)] == [2, 2, 1]


def test_anybody_can_check_what_is_shown(shown, owned):
    register, mark, document, body = shown
    pairs = check_revealed(document, body, spent=spent_in(register, mark.id, before="c1"))
    rows = [one["leaf"]["i"] for one in document["leaves"]]
    assert [digest(x) for x, _ in pairs] == [digest(mark.triggers.row(row)) for row in rows]
    assert [y for _, y in pairs] == mark.triggers.answers[rows].tolist()
    assert spent(register, mark.id) == set(rows)
    assert spent(register, "another") == set()
    assert checking.check(register.path).ok
    again = reveal(register, mark, drawn(mark.public["root"]), 20)  # a retry: the same leaves, no second entry
    assert json.loads(json.dumps(again)) == document
    assert sum(entry.type == "trigger.spent" for entry in register.entries()) == 1


def test_what_was_shown_before_is_drawn_again_and_counts_as_missed(shown):
    register, mark, document, body = shown
    second = reveal(register, mark, drawn(mark.public["root"], "c2"), 50)
    known = {one["leaf"]["i"] for one in second["leaves"]} & {one["leaf"]["i"] for one in document["leaves"]}
    assert known
    before = spent_in(register, mark.id, before="c2")
    assert len(check_revealed(second, body, spent=before)) == 50 - len(known)
    # The first stays what it was, though more are spent now.
    assert len(check_revealed(document, body, spent=spent_in(register, mark.id, before="c1"))) == 20
    with pytest.raises(NotaryError, match="cannot be drawn among 100"):
        reveal(register, mark, drawn(mark.public["root"], "c3"), 101)


def test_an_owner_who_spends_what_does_not_match_does_not_choose_the_rest(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    matching = set(range(0, 100, 10))  # what an innocent model hits
    spend(register, mark.id, set(range(100)) - matching, "asked of an API", "verify/1")
    document = reveal(register, mark, drawn(mark.public["root"]), 20)
    before = spent_in(register, mark.id, before="c1")
    left = check_revealed(document, committed(register, mark), spent=before)
    assert len(left) < 10
    assert confidence(100, 20, missed=20 - len(left)) <= 30


def test_the_owner_picks_nothing(shown):
    _, mark, document, body = shown
    rows = [one["leaf"]["i"] for one in document["leaves"]]
    leaves = mark.triggers.leaves(mark.id, mark.subkeys.stream("disclosure"))
    hashed = [hash_leaf(leaf) for leaf in leaves]
    other = next(row for row in range(100) if row not in rows)
    genuine = reveal_one(document, mark, leaves, hashed, other)
    swapped = copy.deepcopy(document)
    swapped["leaves"][0] = genuine
    with pytest.raises(NotaryError, match="picked"):
        check_revealed(swapped, body, spent={})
    with pytest.raises(NotaryError, match="picked"):
        check_revealed({**document, "leaves": document["leaves"][::-1]}, body, spent={})
    with pytest.raises(NotaryError, match="picked"):
        check_revealed({**document, "leaves": document["leaves"][1:]}, body, spent={})
    # Fewer than drawn, from the front, are what a shorter draw would have given: the claim is just smaller.
    assert len(check_revealed({**document, "leaves": document["leaves"][:5]}, body, spent={})) == 5


def reveal_one(document, mark, leaves, hashed, row):
    value = mark.triggers.row(row)
    template = copy.deepcopy(document["leaves"][0])
    template["input"]["data"] = base64.b64encode(value.tobytes()).decode()
    return {**template, "leaf": leaves[row], "proof": [one.hex() for one in merkle.proof(hashed, row)]}


def changed(document, path, value):
    copied = copy.deepcopy(document)
    *way, last = path
    at = copied
    for step in way:
        at = at[step]
    at[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("leaves", 0, "leaf", "y"), 99, "not below root"),
        (("leaves", 0, "leaf", "salt"), "00" * 16, "not below root"),
        (("leaves", 0, "proof", 0), "00" * 32, "not below root"),
        (("leaves", 0, "leaf", "watermark"), "0" * 32, "another watermark"),
        (("leaves", 0, "leaf", "extra"), 1, "another watermark"),
        (("n",), 101, "another watermark"),
        (("leaves", 0, "input", "data"), "AAAA" * 22, "not a disclosure|not the one"),
        (("leaves", 0, "input", "shape"), [64], "not the one"),
        (("case",), "c9", "another case"),
        (("challenge", "root"), "00" * 32, "another case"),
        (("challenge", "nonces", "notary"), "ff" * 16, "does not fit"),
        (("challenge", "nonces"), {}, "not revealed"),
        (("leaves",), None, "not a disclosure"),
    ],
)
def test_edited(shown, path, value, match):
    _, _, document, body = shown
    with pytest.raises(NotaryError, match=match):
        check_revealed(changed(document, path, value), body, spent={})


def test_a_challenge_for_other_triggers(owned):
    owner, mark, _ = owned
    with pytest.raises(NotaryError, match="not for this watermark"):
        reveal(Register.of(owner), mark, drawn("00" * 32), 5)
    assert spent(Register.of(owner), mark.id) == set()


def test_where_some_rows_are_never_asked_a_notary_has_to_say_which(owned):
    owner, _, options = owned
    mark = wmplug.create(owner, scheme="logo", triggers=60, **options)
    register = Register.of(owner)
    document = reveal(register, mark, drawn(mark.public["root"]), 10)
    body = committed(register, mark)
    rows = [one["leaf"]["i"] for one in document["leaves"]]
    assert set(rows) <= set(mark.triggers.plan.choices.rows.tolist())
    with pytest.raises(NotaryError, match="a notary"):
        check_revealed(document, body, spent={})
    among = verification.fresh(mark, set())
    assert len(check_revealed(document, body, spent={}, among=among)) == 10
    # The whole draw of what was shown is left out from then on.
    left = verification.fresh(mark, spent(register, mark.id))
    draws = mark.triggers.plan.draw
    assert not set(draws[left].tolist()) & set(draws[rows].tolist())


def test_texts(tmp_path):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    texts = [f"sentence {i} of the owner" for i in range(60)]
    options = {"carriers": texts, "classes": 4, "triggers": 40, "pictures": texts[:40]}
    mark = wmplug.create(owner, scheme="random-label", **options)
    document = json.loads(json.dumps(reveal(Register.of(owner), mark, drawn(mark.public["root"]), 7)))
    pairs = check_revealed(document, committed(Register.of(owner), mark), spent={})
    assert {text for text, _ in pairs} <= set(texts)


def test_spend_says_each_thing_once(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    first = spend(register, mark.id, np.array([3, 1]), "asked", "c1")
    assert spend(register, mark.id, [1, 3], "asked", "c1").seq == first.seq
    assert spend(register, mark.id, [1, 4], "asked", "c1").seq == first.seq + 1
    assert spent_in(register, mark.id) == {1: "c1", 3: "c1", 4: "c1"}
    sealed = {"watermark": mark.id, "case": "c2", "to": "age1", "rows": [0, 1, 2, 9], "revealed": None}
    register.append("disclosure", sealed)  # to a notary, in confidence
    assert spent(register, mark.id) == {1, 3, 4}


def test_what_the_register_says_of_a_disclosure(shown):
    register, mark, document, _ = shown
    rows = [one["leaf"]["i"] for one in document["leaves"]]
    told = {entry.type: entry for entry in register.entries()}
    assert told["disclosure"].body == {
        "watermark": mark.id,
        "case": "c1",
        "to": "public",
        "rows": rows,
        "revealed": [one["leaf"] for one in document["leaves"]],
    }
    assert told["disclosure"].seq < told["trigger.spent"].seq
    assert told["trigger.spent"].body == {
        "watermark": mark.id,
        "case": "c1",
        "rows": sorted(rows),
        "why": "shown to everybody",
    }
    assert {name: document[name] for name in ("schema", "case", "watermark", "root", "n")} == {
        "schema": SCHEMA,
        "case": "c1",
        "watermark": mark.id,
        "root": mark.public["root"],
        "n": 100,
    }
    assert document["challenge"] == drawn(mark.public["root"]).to_json()
    assert rows == drawn(mark.public["root"]).draw(range(100), 20)
    # Each leaf is below the root by itself, for whoever has RFC 9162.
    for one in document["leaves"]:
        path = [bytes.fromhex(beside) for beside in one["proof"]]
        assert merkle.verify_proof(hash_leaf(one["leaf"]), one["leaf"]["i"], 100, path, bytes.fromhex(document["root"]))


def test_everybody_knows_what_was_shown_and_not_what_was_asked(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    body = {"watermark": mark.id, "case": "c1", "to": "public", "rows": [5, 3, "4", True, None, 2.5]}
    for told in (
        {**body, "revealed": [{}]},
        {**body, "rows": [7], "revealed": []},
        {**body, "rows": [8], "revealed": None},  # to a notary, in confidence
        {**body, "rows": None, "revealed": [{}]},
        {**body, "rows": [9], "watermark": "another", "revealed": [{}]},
    ):
        register.append("disclosure", told)
    spend(register, mark.id, [1], "asked", "c2")
    assert shown_rows(register.entries(), mark.id) == {3, 5, 7}
    assert spent_in(register, mark.id) == {3: "c1", 5: "c1", 7: "c1", 1: "c2"}
    assert shown_rows(register.entries(), "none") == frozenset()


def test_a_row_is_spent_by_the_case_that_came_first(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    for case, rows in (("c1", [1, 2]), ("c2", [2, 3]), ("c1", [4]), ("c3", [5])):
        spend(register, mark.id, rows, "asked", case)
    assert spent_in(register, mark.id) == {1: "c1", 2: "c1", 3: "c2", 4: "c1", 5: "c3"}
    assert spent_in(register, mark.id, before="c1") == {}
    assert spent_in(register, mark.id, before="c2") == {1: "c1", 2: "c1"}
    assert spent_in(register, mark.id, before="c3") == {1: "c1", 2: "c1", 3: "c2", 4: "c1"}
    assert spent_in(register, mark.id, before="c9") == spent_in(register, mark.id)


def test_a_certificate_is_recorded_with_what_it_spent(owned):
    owner, mark, _ = owned
    register = Register.of(owner)
    entry = spend(register, mark.id, {7, 2}, "asked by a notary", "c1", {"certificate": {"n": 1}})
    assert entry.body == {
        "watermark": mark.id,
        "case": "c1",
        "rows": [2, 7],
        "why": "asked by a notary",
        "certificate": {"certificate": {"n": 1}},
    }
    assert "certificate" not in spend(register, mark.id, [3], "asked", "c1").body
    # The same rows in another case, or other rows in the same, are an event of their own.
    assert len({spend(register, mark.id, rows, "x", case).seq for rows in ([1], [2]) for case in ("a", "b")}) == 4


# What is asked of a suspect when some are spent


def test_verify_asks_only_fresh_rows(owned):
    _, mark, _ = owned
    known = {digest(x): y for x, y in mark.lessons()}
    seen = []

    def copy_(batch):
        seen.extend(digest(x) for x in batch)
        return [known[digest(x)] for x in batch]

    gone = set(range(0, 100, 2))
    rows = verification.fresh(mark, gone)
    verdict = wmplug.verify(mark, copy_, rows=rows, exhaustive=True)
    assert (verdict.queries, verdict.matches, verdict.triggers) == (50, 50, 50)
    assert set(seen) == {digest(mark.triggers.row(row)) for row in range(1, 100, 2)}
    assert verification.asked(mark, verdict, rows) == list(range(1, 100, 2))
    seen.clear()
    stopped = wmplug.verify(mark, copy_, rows=rows)
    assert stopped.proven
    assert seen == [digest(mark.triggers.row(row)) for row in verification.asked(mark, stopped, rows)]
    assert verification.asked(mark, wmplug.verify(mark, copy_)) == list(range(stopped.queries))
    with pytest.raises(InputError, match="no draw is left"):
        wmplug.verify(mark, copy_, rows=[])


def test_judge_agrees_with_verify(owned):
    _, mark, _ = owned

    class Suspect:
        description = "moody"

        def answer(self, inputs):
            for one in inputs:
                if digest(one)[0] == "0":
                    raise RuntimeError("no")
            return [int(digest(one)[:2], 16) % 10 for one in inputs]

    answers = [None if digest(x)[0] == "0" else int(digest(x)[:2], 16) % 10 for x in map(mark.triggers.row, range(100))]
    direct = wmplug.verify(mark, Suspect(), exhaustive=True, keys=3)
    assert direct.failed > 0
    rows = np.arange(100)
    given = Answers("moody", mark.task, rows, tuple(None if one is None else Said(one) for one in answers))
    assert dataclasses.replace(verification.judge(mark, given, keys=3), choices=()) == direct
    nothing = verification.judge(mark, Answers("moody", mark.task, rows, (None,) * 100))
    assert (nothing.state, nothing.failed, nothing.log10_p) == ("inconclusive", 100, 0.0)


# Inclusion proofs


@pytest.mark.filterwarnings("ignore:get_state is deprecated:DeprecationWarning")
@given(st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_proofs_agree_with_pymerkle(size, data):
    index = data.draw(st.integers(0, size - 1))
    entries = [bytes([i]) for i in range(size)]
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    path = merkle.proof(leaves, index)
    theirs = tree.prove_inclusion(index + 1).serialize()["path"]
    assert [one.hex() for one in path] == theirs[1:]
    assert merkle.verify_proof(leaves[index], index, size, path, tree.get_state())


@pytest.mark.parametrize("size", range(1, 18))
def test_a_proof_is_of_one_leaf_at_one_place(size):
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    root = merkle.root(leaves)
    for index in range(size):
        path = merkle.proof(leaves, index)
        for at, leaf in itertools.product(range(-1, size + 1), range(size)):
            right = at == leaf == index
            assert merkle.verify_proof(leaves[leaf], at, size, path, root) == right
        assert not merkle.verify_proof(leaves[index], index, size, [*path, bytes(32)], root)
        assert not merkle.verify_proof(leaves[index], index, size, path[:-1], root) or not path
        assert not merkle.verify_proof(leaves[index], index, size, path, bytes(32))


def test_leaves_are_what_the_root_is_over(owned):
    _, mark, _ = owned
    leaves = mark.triggers.leaves(mark.id, mark.subkeys.stream("disclosure"))
    assert [leaf["i"] for leaf in leaves] == list(range(100))
    assert len({leaf["salt"] for leaf in leaves}) == 100
    assert mark.triggers.root(mark.id, mark.subkeys.stream("disclosure")) == mark.public["root"]
    part = dataclasses.replace(mark, triggers=mark.triggers.only(range(40)))
    assert part.triggers.root(mark.id, mark.subkeys.stream("disclosure")) == mark.public["root"]
