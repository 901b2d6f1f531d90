"""What a start of the command line imports, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys

SPARED = {
    "asyncio",
    "concurrent.futures",
    "datetime",
    "difflib",
    "logging",
    "pathlib",
    "rampart_seccomp.calls.attributes",
    "rampart_seccomp.calls.metadata",
    "rampart_seccomp.calls.naming",
    "rampart_seccomp.calls.netlink",
    "rampart_seccomp.calls.processes",
    "rampart_seccomp.calls.sending",
    "rampart_seccomp.calls.sockets",
    "rampart_seccomp.launch.command",
    "rampart_seccomp.kernel.probes",
    "rampart_seccomp.launch.popen",
    "rampart_seccomp.policy.cases",
    "rampart_seccomp.policy.explanation",
    "rampart_seccomp.policy.lint",
    "rampart_seccomp.policy.writing",
    "ruamel.yaml",
    "secrets",
    "shutil",
    "sysconfig",
}
"""Modules that a start with warm caches does not need."""

START = """
import sys
from rampart_seccomp.cli import main
assert main(["run", "--", "/bin/true"]) == 0
known = set(sys.modules)
"""


def output(program: str) -> set[str]:
    """Run a program in an interpreter of its own and give the words it prints."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_a_start_imports_no_more_than_it_needs() -> None:
    """Checks, explanations, rare decoders and the YAML parser are left out once the cache is warm."""
    output(START)
    assert output(f"{START}\nprint(*known)") & SPARED == set()


def test_the_package_alone_imports_next_to_nothing() -> None:
    """Whoever only imports it does not wait; the first name brings all that trees need, and no asyncio."""
    found = output("import rampart_seccomp as rampart\nknown = set(sys.modules)\nprint(*known)")
    assert {name for name in found if name.partition(".")[0] in ("attr", "rampart_seccomp")} == {
        "rampart_seccomp"
    }
    everything = "[getattr(rampart, name) for name in rampart.__all__ if name != 'create_subprocess_exec']"
    late = f"import rampart_seccomp as rampart\nrampart.deny\nknown = set(sys.modules)\n{everything}"
    added = output(f"{late}\nprint(*(set(sys.modules) - known))")
    assert {name for name in added if name.partition(".")[0] != "rampart_seccomp"} == set()
    assert "asyncio" not in output(f"{late}\nprint(*sys.modules)")
    assert output("import rampart_seccomp as rampart\nprint(rampart.Process.__module__)") == {
        "rampart_seccomp.events"
    }


def test_what_is_imported_later_is_ours() -> None:
    """While a tree runs, only this package is searched: on the search path it could have left a module."""
    late = sorted(name for name in SPARED if name.startswith("rampart_seccomp.") and "writing" not in name)
    program = f"{START}\nimport importlib\nfor name in {late}: importlib.import_module(name)"
    found = output(f"{program}\nprint(*(set(sys.modules) - known))")
    assert found >= set(late)
    assert {name for name in found if name.partition(".")[0] != "rampart_seccomp"} == set()


GENERATED = """
import attrs, rampart_seccomp as rampart, rampart_seccomp.lowlevel as lowlevel
shown = [getattr(face, name) for face in (rampart, lowlevel) for name in face.__all__]
shown = {each for each in shown if isinstance(each, type)}
shown |= {each for known in shown for each in known.__subclasses__()}
ours = [sys.modules[name] for name in known if name.startswith("rampart_seccomp.")]
values = {value for module in ours for value in vars(module).values() if isinstance(value, type)}
for value in values - shown:
    if "__attrs_attrs__" in vars(value) and "__repr__" in vars(value):
        print(f"{value.__module__}.{value.__name__}")
"""


def test_values_that_nobody_sees_have_no_text() -> None:
    """attrs writes and compiles each method of a class at its import: only what users see has a repr."""
    found = output(f"{START}{GENERATED}")
    assert found == set()
