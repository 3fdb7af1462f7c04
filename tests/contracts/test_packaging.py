"""The wheel: built as users build it, installed where nothing of the checkout is in reach."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from outbox import __version__
from tests.contracts.markdown import ROOT

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "PYTHON"))}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    for name in ("outbox", "migrations"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []  # else the index is asked for it
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", source / "dist", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (source / "dist").glob("*.whl")
    return found


def test_the_wheel_has_migrations_and_the_marker_of_types(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"outbox/store/{file.relative_to(ROOT)}" for file in (ROOT / "migrations").rglob("*.py")}
    assert {"outbox/py.typed", "outbox/store/migrations/script.py.mako"} | expected <= inside


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in inside} == {"outbox", f"outbox_gate-{__version__}.dist-info"}
    assert not [name for name in inside if "__pycache__" in name or name.endswith((".key", ".db", ".pyc"))]


def test_the_wheel_is_named_and_licensed_as_it_should_be(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    info = f"outbox_gate-{__version__}.dist-info"
    metadata = packed.read(f"{info}/METADATA").decode()
    scripts = packed.read(f"{info}/entry_points.txt").decode()
    assert "Name: outbox-gate\n" in metadata
    assert "License-Expression: MIT\n" in metadata
    assert f"{info}/licenses/LICENSE" in packed.namelist()
    assert "outbox = outbox.cli:main\n" in scripts
    assert "outbox-gate = outbox.cli:main\n" in scripts


def test_an_installed_wheel_makes_and_migrates_its_own_database(wheel: Path, tmp_path: Path) -> None:
    """The libraries are this environment's, on the path after the wheel's own; the checkout is not on it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "venv" / "lib" / version / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    site.joinpath("libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = tmp_path / "venv" / "bin" / "python"

    def run(*words: str) -> str:
        ran = subprocess.run([python, *words], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    where = run("-c", "import outbox, outbox.store.migrate as m; print(outbox.__file__); print(m.scripts())")
    assert all(Path(line).is_relative_to(site) for line in where.split())
    run("-m", "outbox", "init", "--dir", "mine", "--from-domain", "example.org")
    assert run("-m", "outbox", "--config", "mine/outbox.toml", "db", "current") == "0004\n"
    run(
        "-m", "outbox", "--config", "mine/outbox.toml", "draft",
        "--from", "a@example.org", "--to", "b@example.net", "--subject", "Hello", "--text", "Hello",
    )  # fmt: skip
    assert "pending" in run("-m", "outbox", "--config", "mine/outbox.toml", "list")
