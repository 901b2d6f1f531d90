"""What a decision by compiled rules costs, and compiling them: medians, in processor time.

    python benchmarks/rules.py [--rules 10,10000] [--rounds N] [--count N]

`known` decides about paths of eight components whose names were met before, `new` about paths whose last name
was never met. Half of the rules float or have wildcards.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from rampart_seccomp.policy import Policy, deny
from rampart_seccomp.policy.tables import compile_tables

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "csrc"
FLAGS = ["-std=gnu11", "-O2", f"-I{SOURCES}"]
KINDS = ("~/s{0}/**", "**/x{0}", "/srv/*/d{0}/*.k{0}", "./**/*.e{0}")
MODES = ("known", "new")
MEMORY = 4 << 20


def compiled(count: int) -> tuple[bytes, float]:
    """Return the tables of this many rules, and the seconds from rules to tables."""
    before = time.process_time()
    rules = [
        deny("read", paths=[KINDS[number % 4].format(number)], except_=[f"~/s{number}/ok"], name=f"r{number}")
        for number in range(count)
    ]
    matcher = Policy(rules=rules, default={"read": "allow"}).matcher(home=b"/home/u", directory=b"/home/u/p")
    return compile_tables(matcher), time.process_time() - before


def main() -> None:
    """Print seconds of compiling, nanoseconds of a decision, and ratios to the first number of rules."""
    parser = argparse.ArgumentParser(description="What a decision by compiled rules costs.")
    parser.add_argument("--rules", default="10,1000,10000", help="numbers of rules")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=200_000, help="decisions in a round")
    options = parser.parse_args()
    numbers = [int(number) for number in options.rules.split(",")]
    times: dict[tuple[int, str], list[float]] = {(n, mode): [] for n in numbers for mode in MODES}
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "rules"
        parts = [SOURCES / name for name in ("tables.c", "patterns.c", "rules.c", "walker.c")]
        subprocess.run(["cc", *FLAGS, "-o", program, HERE / "rules.c", *parts], check=True)
        for number in numbers:
            blob, seconds = compiled(number)
            (Path(directory) / str(number)).write_bytes(blob)
            print(f"{number:>6} rules: compiled in {seconds:6.3f} s, {len(blob):>8} bytes")
        for _ in range(options.rounds):
            for number, mode in times:
                argv = [program, Path(directory) / str(number), mode, str(MEMORY), str(options.count)]
                done = subprocess.run(argv, capture_output=True, text=True, check=True)
                times[number, mode].append(float(done.stdout))
    medians = {key: statistics.median(values) for key, values in times.items()}
    for (number, mode), nanoseconds in medians.items():
        ratio = nanoseconds / medians[numbers[0], mode]
        print(f"{number:>6} rules, {mode:<5} {nanoseconds:8.1f} ns  {ratio:5.2f}x of {numbers[0]}")


if __name__ == "__main__":
    main()
