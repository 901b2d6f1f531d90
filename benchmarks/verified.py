"""What verifying an exec costs by itself, without the broker's Python: medians of several rounds in one run.

    python benchmarks/verified.py [--rounds N] [--count N]

`bare` starts a static program without a filter. `continued` has its execve held and let go by a loop in C.
`stopped` adds the stop at the commit alone, which nobody can spare who looks at a committed exec. `verified`
is what the launcher does: the stop, and the comparison of image, arguments and variables.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "csrc"
MODES = ("bare", "continued", "stopped", "verified")
FLAGS = ["-std=gnu11", "-O2", f"-I{SOURCES}"]


def measure(rounds: int, count: int, directory: Path) -> dict[str, float]:
    """Return the median of microseconds a start, by mode; the modes take turns."""
    program, benchmark = directory / "program", directory / "verified"
    (directory / "program.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["cc", "-O2", "-static", "-o", program, directory / "program.c"], check=True)
    parts = [SOURCES / name for name in ("trace.c", "process.c", "committed.c", "children.c", "control.c")]
    subprocess.run(["cc", *FLAGS, "-o", benchmark, HERE / "verified.c", *parts], check=True)
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            argv = [benchmark, mode, str(count), program]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            times[mode].append(float(done.stdout))
    return {mode: statistics.median(values) for mode, values in times.items()}


def main() -> None:
    """Print microseconds, and ratios to bare."""
    parser = argparse.ArgumentParser(description="What verifying an exec costs by itself.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=1_000, help="starts in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        medians = measure(options.rounds, options.count, Path(directory))
    for mode, microseconds in medians.items():
        print(f"{mode:<10} {microseconds:8.1f} us  {microseconds / medians['bare']:5.2f}x bare")
    more = medians["verified"] - medians["stopped"]
    print(f"comparing  {more:8.1f} us  {more / medians['bare']:5.2f}x bare")


if __name__ == "__main__":
    main()
