from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

import divid
from divid.cli import main as cli
from divid.cli.common import is_main_process
from divid.errors import ModelError


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from divid.cli.main import main; status = main(['--help']); "
        "heavy = {'torch', 'numpy', 'diffusers', 'jsonargparse', 'pytorch_lightning', 'datasets', 'av', 'rich'}; "
        "heavy &= set(sys.modules); assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert f"  {name} " in done.stdout


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"divid {divid.__version__}\n"


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: divid {command}" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["swop"], "unknown command 'swop' (did you mean 'swap'?)"),
        (["swap", "--motoin", "b.mp4"], "unknown option '--motoin' of divid swap (did you mean '--motion'?)"),
        (["swap", "--seed=x", "--appearance", "a", "--motion", "b", "--out", "c.mp4"], "seed"),
        (["swap", "--out", "c.mp4"], "appearance"),
        (["swap", "--solver", "euler", "--appearance", "a", "--motion", "b", "--out", "c.mp4"], "solver"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(words, expected, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("divid: error: ")
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize(
    ("raised", "code", "start"),
    [
        (ModelError("no\nmodel"), 2, "divid: error: no model"),
        (KeyboardInterrupt(), 130, "divid: interrupted"),
        (PermissionError(13, "", "/secret/a.mp4"), 2, "divid: error: /secret/a.mp4: Permission denied: check its permissions\n"),
        (OSError(28, "write"), 2, "divid: error: No space left on device: free some space or choose another place\n"),
        (OSError(5, "Input/output error"), 1, "divid: internal error: OSError: [Errno 5]"),
        (RuntimeError("out of luck"), 1, "divid: internal error: RuntimeError: out of luck"),
    ],
)
def test_what_a_command_raises_becomes_one_line(raised, code, start, monkeypatch, capsys):
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)

    def run(args):
        raise raised

    monkeypatch.setitem(sys.modules, "made_up", SimpleNamespace(add_arguments=lambda parser: None, run=run))
    monkeypatch.setitem(cli.COMMANDS, "made-up", ("made_up", "raises"))
    assert cli.main(["made-up"]) == code
    error = capsys.readouterr().err
    assert error.startswith(start)
    assert error.count("\n") == 1


def test_the_traceback_is_kept_on_demand(monkeypatch):
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")

    def run(args):
        raise RuntimeError("out of luck")

    monkeypatch.setitem(sys.modules, "made_up", SimpleNamespace(add_arguments=lambda parser: None, run=run))
    monkeypatch.setitem(cli.COMMANDS, "made-up", ("made_up", "raises"))
    with pytest.raises(RuntimeError, match="out of luck"):
        cli.main(["made-up"])


def test_python_m_divid_is_the_command():
    done = subprocess.run([sys.executable, "-m", "divid", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"divid {divid.__version__}\n"


@pytest.mark.parametrize(
    ("ranks", "is_main"), [({}, True), ({"LOCAL_RANK": "1"}, False), ({"RANK": "4", "LOCAL_RANK": "0"}, False)]
)
def test_one_of_several_processes_speaks_for_all(ranks, is_main, monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() == is_main
