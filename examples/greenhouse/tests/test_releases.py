"""The patches that make 1.1.0 and 1.2.0: they apply, and each release does what it is for."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import WAIT_S, Gateway

from greenhouse import __version__

PROJECT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(not shutil.which("patch"), reason="needs the command `patch`"),
    pytest.mark.skipif(__version__ != "1.0.0", reason="the patches are made for 1.0.0"),
]


def sources_of(tmp_path: Path, *versions: str) -> str:
    """The `src` of a copy of the project, brought to the last of `versions`."""
    tree = tmp_path / "greenhouse"
    shutil.copytree(PROJECT, tree, ignore=shutil.ignore_patterns(".*", "dist", "__pycache__"))
    for version in versions:
        with (PROJECT / "releases" / f"{version}.patch").open() as patch:
            subprocess.run(["patch", "-p1", "--fuzz=0"], stdin=patch, cwd=tree, check=True)  # noqa: S607
    assert f'\nversion = "{versions[-1]}"\n' in (tree / "pyproject.toml").read_text()
    return str(tree / "src")


def test_1_1_0_adds_the_vapour_pressure_deficit(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    before = start().ready()
    assert "vapour_pressure_deficit" not in before.json("/status")["derived"]
    before.end()
    gateway = start(PYTHONPATH=sources_of(tmp_path, "1.1.0")).ready()
    assert 0.1 < gateway.json("/status")["derived"]["vapour_pressure_deficit"]["value"] < 4
    page = gateway.get("/metrics")[1]
    assert 'greenhouse_derived{quantity="vapour_pressure_deficit",unit="kilopascal"} ' in page


def test_1_2_0_fails_its_self_test_and_is_never_ready(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = start(PYTHONPATH=sources_of(tmp_path, "1.1.0", "1.2.0"))
    assert gateway.process.wait(WAIT_S) == 1
    with pytest.raises(AssertionError, match="no READY=1"):
        gateway.wait_for("READY=1")
    log = gateway.log.read_text()
    assert "self-test failed: sensor `temperature` reads " in log
    assert "celsius, plausible is -10 to 50" in log
