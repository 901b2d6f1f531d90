"""Run parts of CPython's own test suite bare and behind a policy that allows everything, and compare.

    python tests/transparency/compare.py [--python PROGRAM] [--ignore PATTERN] [--use RESOURCE] MODULE...

What is compared are the sets of passed, failed and skipped tests. A module with a difference is run again, up
to N times each way: only what differs every time counts, since some tests depend on the machine's mood.
Differences that `differences.txt` lists, with the reason, are expected. Any other ends the run with status 1,
and so does a listed one that is none any more. The list is root's: nobody else meets more.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from xml.etree import ElementTree

import rampart_seccomp as rampart

LISTED = Path(__file__).with_name("differences.txt")
EVERYTHING = ["read", "write", "exec", "connect", "listen"]
SECONDS = 900
"""For one module."""

Results = dict[str, str]


def policy() -> rampart.Policy:
    """Give the policy that restricts nothing."""
    return rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], features=["sysv-ipc"])


def results(report: Path) -> Results:
    """Read a JUnit report: what became of each test."""
    found: Results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = [child.tag for child in case if child.tag in ("error", "failure", "skipped")]
        failed = {"error", "failure"} & set(outcomes)
        found[case.attrib["name"]] = "failed" if failed else "skipped" if outcomes else "passed"
    return found


def run(
    python: str, module: str, *, mediated: bool, ignored: Sequence[str] = (), use: str = "none"
) -> Results:
    """Run one module of the suite with some of regrtest's resources, but for tests that a pattern matches."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        argv = [python, "-W", "ignore", "-m", "test", "--junit-xml", str(report), "-u", use]
        argv += [*(f"--ignore={pattern}" for pattern in ignored), module]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        options = {"cwd": directory, "env": environment, "capture_output": True, "timeout": SECONDS}
        try:
            if mediated:
                rampart.run(argv, policy=policy(), **options)
            else:
                subprocess.run(argv, check=False, **options)  # type: ignore[call-overload]
        except subprocess.TimeoutExpired:
            return {module: "ran out of time"}
        return results(report) if report.exists() else {module: "left no report"}


def differences(bare: Results, mediated: Results) -> dict[str, tuple[str, str]]:
    """Give the tests that came out differently; one that did not run is `absent`."""
    names = sorted({*bare, *mediated})
    both = {name: (bare.get(name, "absent"), mediated.get(name, "absent")) for name in names}
    return {name: outcome for name, outcome in both.items() if outcome[0] != outcome[1]}


def compare(
    python: str,
    module: str,
    expected: Collection[str],
    *,
    rounds: int = 3,
    ignored: Sequence[str] = (),
    use: str = "none",
) -> tuple[Results, dict[str, tuple[str, str]]]:
    """Run a module both ways, again where it differs unexpectedly: what it does bare, and what differs."""

    def once() -> tuple[Results, dict[str, tuple[str, str]]]:
        bare, mediated = (
            run(python, module, mediated=each, ignored=ignored, use=use) for each in (False, True)
        )
        return bare, differences(bare, mediated)

    bare, found = once()
    for _ in range(rounds - 1):
        if found.keys() <= set(expected):
            break
        _, again = once()
        found = {name: outcome for name, outcome in again.items() if name in found}
    return bare, found


def listed(module: str) -> dict[str, str]:
    """Read the expected differences of a module: the reason for each test."""
    lines = [line.strip() for line in LISTED.read_text().splitlines()]
    pairs = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
    return {key.partition(" ")[2]: reason for key, reason in pairs if key.startswith(f"{module} ")}


def unignore() -> None:
    """Let the tests have the signals that nohup and a shell's ``&`` ignore: programs inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def main() -> int:
    """Compare the modules named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the suite")
    parser.add_argument("--rounds", type=int, default=3, help="how often a difference is looked at")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="PATTERN", help="leave out tests; may be repeated"
    )
    parser.add_argument(
        "--use",
        default="none",
        metavar="RESOURCE",
        help="what tests may need: `network` for test_socketserver",
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE")
    options = parser.parse_args()
    unignore()
    bad = 0
    for module in options.modules:
        expected = listed(module)
        given = {"rounds": options.rounds, "ignored": options.ignore, "use": options.use}
        bare, found = compare(options.python, module, expected, **given)
        counts = collections.Counter(bare.values())
        print(f"{module}: bare", ", ".join(f"{counts[each]} {each}" for each in sorted(counts)), flush=True)
        bad += not counts["passed"]
        for name, (one, other) in found.items():
            reason = expected.get(name)
            bad += reason is None
            print(f"  {name}: bare {one}, mediated {other} ({reason or 'NOT EXPECTED'})", flush=True)
        for name in sorted(expected.keys() - found.keys()):
            bad += 1
            print(f"  {name}: listed, and does not differ", flush=True)
    print("equal but for what is listed" if not bad else f"{bad} that should not be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
