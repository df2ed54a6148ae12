"""What `wmplug audit` refuses before anything heavy is loaded."""

import sys


def test_without_torch_it_says_what_to_install(terminal, monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("wmplug.audit")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'wmplug[audit]'" in terminal.error("audit", "--quick")


def test_what_does_not_go_together(terminal):
    assert "give one of them" in terminal.error("audit", "--quick", "--full")
    assert "only delta can be swept" in terminal.error("audit", "--sweep", "rate")
    assert "give numbers with commas between" in terminal.error("audit", "--sweep", "delta", "--values", "a,b")
    assert "leave FILE.wm out" in terminal.error("audit", "own.wm", "--sweep", "delta")
    assert "takes MODEL" in terminal.error("audit", "own.wm", "--data", "module:name")
