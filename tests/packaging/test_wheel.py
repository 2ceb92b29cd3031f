"""The wheel holds what the tree holds, and works outside the checkout."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("blocks", "cli", "deployments", "flows")
"""Folders of the tree that install below `snapferry`."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the tree, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    names = [name.decode() for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")]
    for name in names:
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(folder / "tree")]
    subprocess.run(command, check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed where nothing else of Snapferry is."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.mark.slow
def test_the_wheel_has_every_module_and_data_file_of_the_tree_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == _files_of_the_tree()


@pytest.mark.slow
def test_every_module_of_the_wheel_imports_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    modules = sorted(
        ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__")
        for name in _files_of_the_tree()
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    module = importlib.import_module(name)\n"
        f"    assert module.__file__.startswith({str(installed)!r}), module.__file__\n"
        "print(len([name for name in sys.modules if name.split('.')[0] == 'snapferry']))\n"
    )
    done = _run(installed, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(modules)


@pytest.mark.slow
def test_the_command_of_the_wheel_shows_its_help(installed: Path, tmp_path: Path) -> None:
    done = _run(installed, tmp_path, str(installed / "bin" / "snapferry"), "--help")
    assert done.returncode == 0, done.stderr
    assert "approve" in done.stdout


def test_every_package_of_the_tree_is_listed_in_pyproject() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(Path(name).parent.parts) for name in _files_of_the_tree() if name.endswith("/__init__.py")}
    assert set(listed) == found


def test_the_engine_imports_neither_prefect_nor_a_room_that_does() -> None:
    outer = ("prefect", *(f"snapferry.{room}" for room in ROOMS))
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "snapferry").rglob("*.py")
        for name in _imports(path)
        if name.startswith(outer)
    ]
    assert wrong == []


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def _files_of_the_tree() -> set[str]:
    """Every file of the package as it is laid out when installed."""
    found = set()
    for room in ("snapferry", *ROOMS):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT).as_posix()
                found.add(name if room == "snapferry" else f"snapferry/{name}")
    return found


def _run(installed: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python in another folder, with the installed wheel before this environment's own packages."""
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "100"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def _git(*arguments: str) -> list[bytes]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)
    return [name for name in done.stdout.split(b"\0") if name]
