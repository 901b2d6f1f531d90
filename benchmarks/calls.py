"""What a mediated call costs, beside the bare one: medians of several rounds, and ratios, in one run.

    python benchmarks/calls.py [--rounds N] [--json FILE]

This version answers in Python, under the interpreter lock; the numbers say so. "unverified" is the policy
that allows everything, with the verification of execs at their commit taken out: what that costs is the
difference to "allow-all".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import rampart_seccomp as rampart
from rampart_seccomp.calls.starting import ExecCall

COUNTS = {"getppid": 200_000, "stat": 50_000, "open": 2_000, "open denied": 2_000, "create": 1_000}
COUNTS |= {"connect": 1_000, "spawn": 100, "spawn static": 100}
SPAWNS = {"spawn", "spawn static"}
EVERYTHING = ["read", "write", "exec", "connect", "listen"]


def measure(rounds: int, directory: Path) -> dict[str, dict[str, float]]:
    """Return microseconds a call, by call and by way of running it."""
    program = directory / "calls"
    subprocess.run(["cc", "-O2", "-o", program, Path(__file__).with_name("calls.c")], check=True)
    subprocess.run(
        ["cc", "-O2", "-static", "-x", "c", "-", "-o", directory / "static"],
        input=b"int main(void) { return 0; }",
        check=True,
    )
    (directory / "file").write_text("x")
    (directory / "denied").write_text("x")
    agent = rampart.Policy.load("agent").with_rules(
        rampart.allow("write", paths=[f"{directory}/**"], name="bench-writes"),
        rampart.allow("connect", hosts=["127.0.0.1"], name="bench-connects"),
        rampart.deny("read", paths=[f"{directory}/denied"], name="bench-denied"),
    )
    free = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")])
    times: dict[str, dict[str, list[float]]] = {}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        rampart.Broker(free) as all_broker,
        rampart.Broker(agent) as agent_broker,
    ):
        sink.bind(("127.0.0.1", 0))
        port = str(sink.getsockname()[1])
        for _ in range(rounds):
            for name, count in COUNTS.items():
                argv = [str(program), name, str(count), str(directory), port]
                bare = subprocess.run([*argv], capture_output=True, text=True, check=True).stdout
                results = {"bare": bare}
                for way, broker in (("allow-all", all_broker), ("agent", agent_broker)):
                    done = rampart.run(argv, broker=broker, capture_output=True, text=True, check=True)
                    results[way] = done.stdout
                if name in SPAWNS:
                    with unverified():
                        done = rampart.run(
                            argv, broker=all_broker, capture_output=True, text=True, check=True
                        )
                    results["unverified"] = done.stdout
                for way, text in results.items():
                    times.setdefault(name, {}).setdefault(way, []).append(float(text))
    return {
        name: {way: statistics.median(values) for way, values in ways.items()} for name, ways in times.items()
    }


@contextlib.contextmanager
def unverified() -> Iterator[None]:
    """While inside, an allowed exec goes on without being traced."""
    perform = ExecCall.perform
    ExecCall.perform = lambda call: call.notification.allow()  # type: ignore[method-assign]
    try:
        yield
    finally:
        ExecCall.perform = perform  # type: ignore[method-assign]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        medians = measure(options.rounds, Path(directory).resolve())
    print(f"{'call':<12} {'bare µs':>9} {'allow-all':>10} {'ratio':>7} {'agent':>10} {'ratio':>7}")
    for name, ways in medians.items():
        ratios = [ways[way] / ways["bare"] for way in ("allow-all", "agent")]
        print(
            f"{name:<12} {ways['bare']:>9.2f} {ways['allow-all']:>10.2f} {ratios[0]:>6.1f}x"
            f" {ways['agent']:>10.2f} {ratios[1]:>6.1f}x"
        )
    for name in sorted(SPAWNS):
        ways = medians[name]
        print(
            f"{name}: bare {ways['bare']:.0f} µs, unverified {ways['unverified'] / ways['bare']:.1f}x, "
            f"verified {ways['allow-all'] / ways['bare']:.1f}x; verification adds "
            f"{ways['allow-all'] - ways['unverified']:.0f} µs ({ways['allow-all'] / ways['unverified']:.2f}x)"
        )
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2) + "\n")


if __name__ == "__main__":
    main()
