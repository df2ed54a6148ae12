"""What the pages for plugin authors say is so: each hook with its arguments, each example runs."""

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sklearn.tree import DecisionTreeClassifier

from wmplug import hookspecs, plugins
from wmplug.claim.verification import verify
from wmplug.testing import schemes as testing

ROOT = Path(__file__).parents[1]
PLUGINS, CONTRIBUTING = (ROOT / "docs" / "plugins.md").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("wmplug_")}
SECTIONS = dict(re.findall(r"^### `(\w+)\(.*?\)`\n(.*?)(?=^##)", PLUGINS, re.M | re.S))


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def run(code, name="page"):
    module = ModuleType(name)
    # Dataclasses look up the module that a class says it is from.
    sys.modules[name] = module
    exec(compile(code, name, "exec"), vars(module))
    return module


def plugin(hook):
    module = run(blocks(SECTIONS[hook])[0])
    return plugins.Registry([SimpleNamespace(name="page", value="docs/plugins.md", dist=None, load=lambda: module)])


def test_every_hook_is_documented_with_its_arguments():
    documented = re.findall(r"^### `(\w+)\((.*?)\)`$", PLUGINS, re.M)
    assert documented == [(name, ", ".join(inspect.signature(hook).parameters)) for name, hook in HOOKS.items()]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_section_says_when_explains_arguments_and_has_a_short_example(hook):
    section = SECTIONS[hook]
    assert section.startswith("\nWhen: ")
    for argument in inspect.signature(HOOKS[hook]).parameters:
        assert f"- `{argument}`: " in section
    (example,) = blocks(section)
    assert f"def {hook}(" in example
    assert len(example.strip().splitlines()) <= 10


def test_the_scheme_of_the_page_is_found():
    assert plugin("wmplug_schemes").scheme("sparse").rate == 0.03


def test_the_adapter_of_the_page_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_plugin", ModuleType("my_plugin"))
    adapter = ModuleType("my_plugin.adapter")
    adapter.WatermarkCallback = print
    monkeypatch.setitem(sys.modules, "my_plugin.adapter", adapter)
    assert plugin("wmplug_adapters").adapter("my-framework") is print


def test_the_suspect_of_the_page_answers(digits):
    x, y = digits[0].reshape(-1, 64), digits[1]
    tree = DecisionTreeClassifier(random_state=0).fit(x, y)
    registry = plugin("wmplug_suspect")
    assert registry.suspect(tree, None, 64).answer(x[:3]).shape == (3, 10)
    assert registry.suspect(object(), None, 64) is None


def test_the_listener_of_the_page_writes(owner, digits, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    registry = plugin("wmplug_verdict")
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    mark = testing.create(owner, scheme="random-label", carriers=digits[0], classes=10, triggers=30)
    verdict = verify(mark, testing.knowing(mark))
    assert (tmp_path / "verdicts.jsonl").read_text() == verdict.to_json() + "\n"


def test_the_listener_to_events_prints(capsys):
    plugin("wmplug_event").tell("wmplug_event", event={"type": "anchor"})
    assert capsys.readouterr().out == "registered: anchor\n"


def test_the_scheme_of_the_contributing_page_keeps_its_contract(tmp_path, monkeypatch):
    page = run("\n".join(blocks(CONTRIBUTING)))
    monkeypatch.setitem(plugins.SCHEMES, "noise", "page:Noise")
    monkeypatch.setattr(plugins, "registry", lambda: plugins.Registry([]))
    contract = page.TestNoise()
    # Under pytest a fixture is not called by name; its function is what the page shows.
    given = {name: inspect.unwrap(getattr(contract, name).__wrapped__)(contract) for name in ("scheme", "task")}
    given |= {"plan": given["scheme"].plan(given["task"], testing._input_stream()), "tmp_path": tmp_path}
    checks = [name for name in dir(contract) if name.startswith("test_")]
    assert len(checks) >= 9
    for name in checks:
        check = getattr(contract, name)
        check(**{argument: given[argument] for argument in inspect.signature(check).parameters})


def test_the_contracts_on_the_contributing_page_override_what_must_be():
    page = run("\n".join(blocks(CONTRIBUTING)))
    for name in ("train", "train_beside"):
        shown = getattr(page.TestMyFramework, name)
        assert (
            inspect.signature(shown).parameters.keys()
            == inspect.signature(getattr(testing.AdapterContract, name)).parameters.keys()
        )


@pytest.mark.parametrize(("page", "text"), [("docs/plugins.md", PLUGINS), ("CONTRIBUTING.md", CONTRIBUTING)])
def test_links_lead_somewhere(page, text):
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()] == []


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("integrations/*/README.md")]


def anchors(page):
    """The headings of a page as the addresses that a Markdown viewer gives them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_every_page_lead_to_a_file_and_to_a_heading_in_it(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    links = [link.partition("#") for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", text)]
    places = [((page.parent / file).resolve() if file else page, heading) for file, _, heading in links]
    assert [str(file) for file, _ in places if not file.exists()] == []
    assert [heading for file, heading in places if heading and heading not in anchors(file)] == []
