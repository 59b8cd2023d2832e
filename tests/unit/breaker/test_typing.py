"""The decorator keeps the signature and the kind of what it wraps, for the type checker too."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
from holdfast.breaker.breaker import TradingCircuitBreaker

breaker = TradingCircuitBreaker()


@breaker
def plain(a: int, *, b: str = "") -> float:
    return 1.0


@breaker
async def later(a: int) -> bytes:
    return b""


class Client:
    @breaker
    def get(self, x: int) -> str:
        return ""

    @breaker
    async def aget(self, x: int) -> list[int]:
        return []


async def main() -> None:
    reveal_type(plain)
    reveal_type(await later(1))
    reveal_type(Client().get(1))
    reveal_type(await Client().aget(1))
    plain("x")
    Client().get()
    await later(1, 2)
"""


@pytest.mark.slow
def test_decorator_keeps_the_signature_for_the_type_checker(tmp_path):
    """mypy --strict sees the wrapped signatures unchanged, and each wrong call of them is an error."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), str(program)]
    got = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    lines = [line.split(": ", 1)[1] for line in got.stdout.splitlines()]
    assert lines == [
        'note: Revealed type is "def (a: int, *, b: str =) -> float"',
        'note: Revealed type is "bytes"',
        'note: Revealed type is "str"',
        'note: Revealed type is "list[int]"',
        'error: Argument 1 to "plain" has incompatible type "str"; expected "int"  [arg-type]',
        'error: Missing positional argument "x" in call to "get" of "Client"  [call-arg]',
        'error: Too many arguments for "later"  [call-arg]',
    ], got.stdout + got.stderr
