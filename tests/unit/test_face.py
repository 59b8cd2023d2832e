"""The face: what `from holdfast import …` promises, and what it costs."""

import importlib
import subprocess
import sys

import pytest

import holdfast


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after *code*."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.__stderr__)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


def test_all_is_sorted_and_says_everything_once():
    """`__all__` is sorted, without doubles, and equals the table of homes and what `dir` shows."""
    assert holdfast.__all__ == sorted(set(holdfast.__all__))
    assert set(holdfast.__all__) == set(holdfast._HOME)
    assert set(holdfast.__all__) <= set(dir(holdfast))
    assert "__version__" in dir(holdfast)


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_public_name_can_be_imported(name, tmp_path, monkeypatch):
    """Each name of the face comes from its home and is the same object there."""
    monkeypatch.chdir(tmp_path)
    found = getattr(holdfast, name)
    home = sys.modules[holdfast._HOME[name]]
    assert found is getattr(home, name)
    assert not list(tmp_path.iterdir()), "reading a name writes nothing"


def test_a_name_that_is_not_there_is_an_attribute_error():
    """A misspelt name fails as an attribute does, and says which."""
    with pytest.raises(AttributeError, match="module 'holdfast' has no attribute 'KalshiClent'"):
        _ = holdfast.KalshiClent


def test_importing_the_face_imports_nothing_else():
    """`import holdfast` loads no other module of the package and no third-party one."""
    modules = loaded("import holdfast")
    assert {name for name in modules if name.startswith("holdfast")} == {"holdfast"}
    assert not modules & {"msgspec", "aiohttp", "cryptography", "polars", "rich", "asyncio"}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_neither_msgspec_nor_aiohttp(words):
    """`--help` and `--version` stay free of third-party packages and of every verb."""
    code = f"from holdfast.cli.main import main\nmain({words!r})"
    modules = loaded(code)
    assert not modules & {"msgspec", "aiohttp", "cryptography", "polars", "rich", "asyncio"}
    assert not {name for name in modules if name.startswith("holdfast.cli.")} - {"holdfast.cli.main"}


@pytest.mark.parametrize("verb", ["append", "cat", "query", "verify", "recover"])
def test_the_log_verbs_import_no_network(verb):
    """Help of a log verb loads neither aiohttp nor polars, rich or asyncio."""
    code = f"from holdfast.cli.main import main\nmain(['audit', {verb!r}, '--help'])"
    assert not loaded(code) & {"aiohttp", "polars", "rich", "asyncio"}


PACKAGES = ["holdfast.audit", "holdfast.breaker", "holdfast.execution", "holdfast.risk"]


@pytest.mark.contract("B9", "B13")
@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_offers_its_names_where_the_contract_imports_them(package, tmp_path, monkeypatch):
    """Each name of a package comes from its home, is sorted, and is the same object as on the face."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module._HOME)
    for name in module.__all__:
        found = getattr(module, name)
        assert found is getattr(sys.modules[module._HOME[name]], name)
        assert name not in holdfast.__all__ or found is getattr(holdfast, name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'RiskManger'"):
        _ = module.RiskManger


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_of_it(package):
    """`import holdfast.risk` and its like load neither their modules nor any third-party one."""
    modules = loaded(f"import {package}")
    assert {name for name in modules if name.startswith(f"{package}.")} == set()
    assert not modules & {"msgspec", "aiohttp", "cryptography", "polars", "rich", "asyncio"}
