from __future__ import annotations

import subprocess
import sys
import types

import pytest

from holdfast import __version__
from holdfast.cli import main as cli
from holdfast.core.errors import AuditCorruption, BadInput, LogHeld, VenueUnreachable


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *words], input=stdin, capture_output=True, check=False
    )


@pytest.fixture
def verb(monkeypatch):
    """A verb `audit` whose `run` the test provides."""

    def install(run):
        module = types.ModuleType("holdfast.cli.audit")
        module.add_arguments = lambda parser: None
        module.run = run
        monkeypatch.setitem(sys.modules, "holdfast.cli.audit", module)
        import holdfast.cli

        monkeypatch.setattr(holdfast.cli, "audit", module, raising=False)

    return install


def raising(error):
    def run(args):
        raise error

    return run


def test_help_imports_no_third_party_package_and_no_verb():
    """`--help` costs nothing but argparse and the table of verbs."""
    code = (
        "import sys, holdfast.cli.main as m\n"
        "code = m.main(['--help'])\n"
        "heavy = [n for n in sys.modules if n.split('.')[0] in ('msgspec', 'aiohttp', 'rich', 'polars', 'cryptography')"
        " or n.startswith(('holdfast.audit', 'holdfast.cli.audit', 'asyncio'))]\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("paper", "exchange", "submit", "audit"):
        assert f"  {name}" in done.stdout.decode()


def test_version_is_printed(capsys):
    """`--version` names the version and ends with 0."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"holdfast {__version__}\n"


def test_an_unknown_verb_is_a_usage_error_with_a_suggestion(capsys):
    """A misspelt verb exits 2 and names the nearest one."""
    assert cli.main(["adit"]) == 2
    assert "did you mean 'audit'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--nonsense"], ["audit"], ["audit", "nonsense"], ["audit", "verify"]])
def test_wrong_usage_exits_2(capsys, words):
    """Whatever is missing or unknown on the command line is a usage error."""
    assert cli.main(words) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("price 'x' refused", hint="pass a number"), 1),
        (AuditCorruption("audit log damaged", sequence=3), 3),
        (LogHeld("log held by process 1"), 4),
        (VenueUnreachable("venue gone"), 5),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (OSError(28, "No space left on device", "/x"), 4),
        (RuntimeError("boom"), 1),
    ],
)
def test_an_error_becomes_a_message_and_its_exit_code(verb, capsys, error, code):
    """Every error ends in one line on stderr and the exit code of its kind, without a traceback."""
    verb(raising(error))
    assert cli.main(["audit"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("holdfast: ")


def test_a_hint_has_its_own_line(verb, capsys):
    """What the reader can do stands on a line of its own."""
    verb(raising(BadInput("price 'x' refused", hint="pass a number")))
    cli.main(["audit"])
    assert capsys.readouterr().err == "holdfast: price 'x' refused\nhint: pass a number\n"


@pytest.mark.invariant("I14")
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_no_secret_is_printed_with_an_error(verb, capsys, debug):
    """Neither message nor traceback shows a credential."""
    verb(raising(RuntimeError("headers: Authorization: Bearer canary12345678")))
    cli.main([*debug, "audit", *debug])
    said = capsys.readouterr().err
    assert "canary" not in said
    assert ("Traceback" in said) is bool(debug)


def test_ctrl_c_ends_without_a_traceback(verb, capsys):
    """KeyboardInterrupt exits 130 and says so."""
    verb(raising(KeyboardInterrupt()))
    assert cli.main(["audit"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_closed_pipe_ends_quietly(tmp_path):
    """When the reader of stdout goes away nothing is printed on stderr."""
    code = "import sys; from holdfast.cli.main import main; sys.exit(main(['--help']))"
    shell = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(
        ["bash", "-c", f"for i in 1 2 3; do {shell}; done"], capture_output=True, check=False
    )
    assert done.stderr == b""


def test_a_verb_whose_module_cannot_be_imported_says_so(capsys, monkeypatch):
    """A missing package is named with a hint, not with a traceback."""
    monkeypatch.setitem(cli.VERBS, "nonesuch", "a verb without a module")
    assert cli.main(["nonesuch"]) == 1
    said = capsys.readouterr().err
    assert "cannot start" in said
    assert "hint:" in said


@pytest.mark.parametrize("verb_name", ["append", "cat", "query", "verify", "recover"])
def test_every_audit_verb_explains_itself_with_examples(capsys, verb_name):
    """`--help` of each subcommand shows an example and knows --json."""
    assert cli.main(["audit", verb_name, "--help"]) == 0
    said = capsys.readouterr().out
    assert "holdfast audit" in said
    assert "--json" in said
