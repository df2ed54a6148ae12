import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from wmplug.errors import InputError, RegisterError
from wmplug.report import card, dossier

README = "---\nlicense: apache-2.0\n---\n# Digits\n\nA model.\n"


@pytest.fixture(scope="module")
def document(story):
    return dossier.gather(story.path)


@pytest.fixture(scope="module")
def made(document):
    return card.section(document)


def test_it_holds_the_public_commitment(document, made, story):
    assert document["who"]["register"] in made
    assert document["who"]["head"] in made
    assert story.mark.public["root"] in made
    assert "random\\-label" in made
    assert made.count("LAB ONLY, NOT ATTESTED") == len(document["anchors"])
    assert all(anchor["token"] in made for anchor in document["anchors"])


def test_it_holds_nothing_else(document, made, story):
    public = {document["who"]["register"], document["who"]["head"]}
    public |= {mark["root"] for mark in document["watermarks"]} | {anchor["token"] for anchor in document["anchors"]}
    assert set(re.findall(r"[0-9a-f]{32,}", made)) == public
    assert "Ada" not in made
    for secret in story.secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in made.encode()


def test_it_is_put_at_the_end_once_and_then_in_its_place(tmp_path, made):
    file = tmp_path / "README.md"
    file.write_text(README)
    file.chmod(0o640)
    card.write(file, made)
    first = file.read_text()
    assert first.startswith(README)
    card.write(file, made)
    assert file.read_text() == first
    file.write_text(first + "\nMore below.\n")
    card.write(file, made.replace("head", "HEAD"))
    assert file.read_text() == first.replace("head", "HEAD") + "\nMore below.\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link_and_line_ends_stay(tmp_path, made):
    file, link = tmp_path / "card.md", tmp_path / "README.md"
    file.write_bytes(README.replace("\n", "\r\n").encode())
    link.symlink_to(file)
    card.write(link, made)
    card.write(link, made)
    assert link.is_symlink()
    data = file.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    assert data.count(card.BEGIN.encode()) == 1


@pytest.mark.parametrize("text", [card.BEGIN, card.END, card.END + card.BEGIN, (card.BEGIN + card.END) * 2])
def test_broken_markers_are_named_and_the_file_is_left(tmp_path, made, text):
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(InputError, match="markers"):
        card.write(file, made)
    assert file.read_text() == text


def test_a_card_that_is_not_there_is_named(tmp_path, made):
    with pytest.raises(InputError, match=r"existing README\.md"):
        card.write(tmp_path / "README.md", made)


def test_a_register_that_does_not_hold_is_not_published(document):
    with pytest.raises(RegisterError, match="does not hold"):
        card.section({**document, "attestation": {"status": "refused"}})


@given(st.text(max_size=200))
def test_around_the_section_nothing_changes_and_twice_is_once(text):
    if card.BEGIN in text or card.END in text:
        return
    once = card.insert(text, f"{card.BEGIN}x{card.END}")
    assert once.startswith(text.rstrip().lstrip("\r\n"))
    assert card.insert(once, f"{card.BEGIN}x{card.END}") == once


@given(st.text(max_size=60))
def test_an_authoritys_name_is_text_and_stays_in_its_cell(document, name):
    anchors = [{**document["anchors"][0], "authority": f"<b>*{name}|`[x](y)"}]
    rendered = MarkdownIt("commonmark").enable("table").render(card.section({**document, "anchors": anchors}))
    rows = [row for row in rendered.splitlines() if row.startswith("<tr>")]
    cells = re.findall(r"<td>", rendered)
    assert len(cells) == 2 * (len(rows) - 1)
    assert not re.search(r"<(b|a|em)\b", rendered.replace("</strong>", "").replace("<strong>", ""))
