"""The C compiles without a warning, runs clean under sanitizers, and is packaged so that it is found."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_broker
import pytest
from fake_broker import FakeBroker

import rampart_seccomp as rampart
from rampart_seccomp.launch import handover, run

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.name for path in (REPOSITORY / "csrc").glob("*.c"))
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(not SOURCES or COMPILER is None, reason="needs the sources and a compiler")


@pytest.fixture(scope="module")
def flags() -> dict[str, Any]:
    pytest.importorskip("cffi")
    return runpy.run_path(str(REPOSITORY / "csrc" / "build_shim.py"))


@pytest.mark.parametrize("source", SOURCES)
def test_no_warnings(source: str, flags: dict[str, Any]) -> None:
    """Every C file compiles with all of our warnings as errors."""
    words = [*flags["COMPILE_ARGS"], *flags["WARNINGS"], "-Werror", "-c", "-o", os.devnull]
    done = subprocess.run(
        [str(COMPILER), *words, str(REPOSITORY / "csrc" / source)], capture_output=True, text=True
    )
    assert done.stderr == ""


@pytest.fixture(scope="module")
def sanitized(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The launcher, built with the address and undefined sanitizers."""
    program = str(tmp_path_factory.mktemp("sanitized") / "launch")
    words = [*flags["COMPILE_ARGS"], "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    empty = subprocess.run(
        [str(COMPILER), *words, "-x", "c", "-", "-o", program], input="int main(void){return 0;}", text=True
    )
    if empty.returncode:
        pytest.skip("no sanitizers")
    sources = [str(REPOSITORY / "csrc" / name) for name in flags["LAUNCHER"]]
    built = subprocess.run([str(COMPILER), *words, "-o", program, *sources], capture_output=True, text=True)
    assert built.stderr == ""
    return program


def test_launcher_under_sanitizers(sanitized: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts, failures, signals and the end of a tree: nothing for address and undefined to complain of."""
    monkeypatch.setattr(fake_broker, "launcher_path", lambda: sanitized)
    # The leak checker traces its own process, and writing its log would be the command's file call.
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    for scope in (True, False):
        broker = FakeBroker(scope=scope)
        done = run(
            ["sh", "-c", "sleep 876 & setsid sleep 876 & exit 7"], broker=broker, stderr=subprocess.PIPE
        )
        assert (done.returncode, done.stderr) == (7, b"")
        assert run(["sh", "-c", "kill -TERM $$"], broker=broker).returncode == -signal.SIGTERM
        with pytest.raises(OSError, match="too long"):
            run(["nosuch"], broker=broker, env={**os.environ, "PATH": ":/nosuch:" + "x" * 5000})
        with pytest.raises(subprocess.TimeoutExpired):
            run(["sleep", "876"], broker=broker, timeout=0.2)


def test_verifying_under_sanitizers(
    sanitized: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Path]
) -> None:
    """Execs that commit, fail, die, hold 1 MiB, have children, or are tampered with: no complaint."""
    monkeypatch.setattr(handover, "launcher_path", lambda: sanitized)
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    attackers = REPOSITORY / "tests" / "attacks" / "src"
    freestanding = ("-nostdlib", "-static-pie", "-fno-stack-protector", "-fno-builtin")
    program = compiled(attackers / "identity.c", *freestanding)
    policy = rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec"], name="everything"),
            rampart.deny("exec", name="argument", commands=["* gold **"]),
        ]
    )
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nsleep 0.1 & /bin/true; exec /bin/sh -c 'exit 7'\n")
    script.chmod(0o755)
    broken = tmp_path / "broken"
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    storm = str(compiled(attackers / "exec_storm.c"))
    with rampart.Broker(policy) as broker:

        def run_it(*argv: object) -> rampart.CompletedProcess[str]:
            return rampart.run([str(word) for word in argv], broker=broker, capture_output=True, text=True)

        done = run_it(script)
        assert (done.returncode, done.stderr) == (7, "")
        assert run_it("sh", "-c", f"{broken} 2>/dev/null; {tmp_path} 2>/dev/null; exit 3").returncode == 3
        for way, count in (("threads", 3), ("killed", 30), ("exiting", 20)):
            done = run_it(storm, way, program, count)
            assert (done.returncode, done.stderr) == (0, "")
        race = (compiled(attackers / "execrace.c"), "leader", "string", 400, 20, program, program)
        done = run_it(*race)
        assert (done.returncode, done.stderr) == (0, "")
        assert any("exec-tampered" in denial.where for denial in done.denials)


@pytest.mark.long
def test_wheel_of_an_sdist(tmp_path: Path) -> None:
    """An sdist builds, under umask 077, into one abi3 wheel that has the shim and a launcher to execute."""
    pytest.importorskip("setuptools")
    build = "from setuptools import build_meta as b; import sys; "
    source = tmp_path / "source"
    shutil.copytree(
        REPOSITORY,
        source,
        ignore=shutil.ignore_patterns(
            ".git", "build", "dist", "*.so", "rampart-seccomp-launch", "*.egg-info"
        ),
    )
    for expression, directory in (
        ("b.build_sdist(sys.argv[1])", source),
        ("b.build_wheel(sys.argv[1])", tmp_path / "unpacked"),
    ):
        subprocess.run(
            [sys.executable, "-c", build + expression, tmp_path],
            cwd=directory,
            check=True,
            capture_output=True,
            umask=0o077,
        )
        if directory == source:
            (archive,) = tmp_path.glob("*.tar.gz")
            shutil.unpack_archive(archive, tmp_path / "unpacking")
            (unpacked,) = (tmp_path / "unpacking").iterdir()
            unpacked.rename(tmp_path / "unpacked")
    (wheel,) = tmp_path.glob("*.whl")
    if not sys.version_info < (3, 13) and not sys._is_gil_enabled():
        pytest.skip("no stable ABI without the GIL")
    assert "-cp310-abi3-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as names:
        modes = {item.filename: item.external_attr >> 16 for item in names.infolist()}
    assert modes["rampart_seccomp/rampart-seccomp-launch"] & 0o100
    assert "rampart_seccomp/_shim.abi3.so" in modes
    target = tmp_path / "target"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    shown = subprocess.run([target / "rampart_seccomp" / "rampart-seccomp-launch"], capture_output=True)
    assert shown.stderr.startswith(b"usage: ")
