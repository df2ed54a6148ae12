import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import RegisterError
from wmplug.register import Register
from wmplug.report import bom, dossier


@pytest.fixture(scope="module")
def document(story):
    return dossier.gather(story.path)


@pytest.fixture(scope="module")
def made(document):
    return bom.bom(document)


def faults(made):
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom.encode(made).decode())
    return None if error is None else repr(error)


def test_it_keeps_the_schema_of_cyclonedx_1_6(made):
    assert faults(made) is None
    assert faults({**made, "components": [{"type": "no such type", "name": "x"}]}) is not None


def test_the_model_has_its_digest_its_card_and_its_data(story, made):
    (model,) = [part for part in made["components"] if part["type"] == "machine-learning-model"]
    (data,) = [part for part in made["components"] if part["type"] == "data"]
    bodies = {entry.type: entry.body for entry in Register(story.path).entries()}
    assert model["name"] == "sklearn.neural_network._multilayer_perceptron.MLPClassifier"
    assert model["hashes"] == [{"alg": "SHA-256", "content": bodies["system.committed"]["tensors"]["sha256"]}]
    assert {"name": "wmplug:hash-of", "value": "the tensors, whatever the file (SHA-256)"} in model["properties"]
    assert {"name": "wmplug:watermark:root", "value": story.mark.public["root"]} in model["properties"]
    assert data["hashes"] == [{"alg": "SHA-256", "content": bodies["dataset.committed"]["root"]}]
    card = model["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]
    assert card["modelParameters"]["task"] == "classification"
    assert "NOT ATTESTED" in card["considerations"]["technicalLimitations"][0]
    assert float(card["quantitativeAnalysis"]["performanceMetrics"][0]["value"]) < -20
    assert made["dependencies"] == [{"ref": model["bom-ref"], "dependsOn": [data["bom-ref"]]}]


def test_the_same_register_gives_the_same_document(story, made):
    assert bom.bom(dossier.gather(story.path)) == made
    assert made["serialNumber"].startswith("urn:uuid:")


def test_another_head_has_another_serial_number(document, made):
    other = bom.bom({**document, "who": {**document["who"], "head": "0" * 64}})
    assert other["serialNumber"] != made["serialNumber"]


def test_no_secret_and_no_training_parameter_is_in_it(story, made):
    said = bom.encode(made)
    for secret in story.secrets:
        assert secret not in said
        assert secret.hex().encode() not in said
    assert b"learning_rate" not in said
    assert b"removed" not in said


def test_a_system_recorded_from_files_is_a_model_too(document):
    asset = {"asset": "finished system", "entry": 9, "class": None, "text": "", "run": None}
    files = {"file (SHA-256)": "ab" * 32, "files (Merkle root)": "cd" * 32}
    made = bom.bom({**document, "runs": [], "assets": [{**asset, "digests": files}]})
    assert made["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert faults(made) is None


def test_the_file_that_was_saved_is_the_model_and_its_tensors_are_told_too(saved):
    entry, digest = saved.file, saved.file.body["files"]["digests"]["."]
    (model,) = [part for part in bom.bom(saved.document)["components"] if part["type"] == "machine-learning-model"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest}]
    told = {one["name"]: one["value"] for one in model["properties"]}
    assert told["wmplug:hash-of"] == "the file that was saved (SHA-256)"
    assert told["wmplug:the tensors, whatever the file (SHA-256)"] == entry.body["tensors"]["sha256"]
    assert faults(bom.bom(saved.document)) is None


def test_a_register_without_a_model_or_one_that_does_not_hold_has_none(document, hostile):
    with pytest.raises(RegisterError, match="records no model"):
        bom.bom(dossier.gather(hostile))
    with pytest.raises(RegisterError, match="does not hold"):
        bom.bom({**document, "attestation": {"status": "refused"}})


_TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)


@given(_TEXTS, _TEXTS, st.dictionaries(st.sampled_from(["torch", "numpy", "keras"]), _TEXTS))
def test_whatever_things_are_called_it_keeps_the_schema(document, kind, adapter, versions):
    changed = json.loads(json.dumps(document))
    for asset in changed["assets"]:
        asset["class"] = kind
    changed["runs"][0] |= {"adapter": adapter, "versions": versions}
    assert faults(bom.bom(changed)) is None
