"""What verifying an exec costs by itself, without the broker's Python: medians of several rounds in one run.

    python benchmarks/verified.py [--rounds N] [--count N]

`bare` starts a static program without a filter. `continued` has its execve held and let go by a loop in C.
`stopped` adds the stop at the commit alone, which nobody can spare who looks at a committed exec. `verified`
is what the launcher does: the stop, and the comparison of image, arguments and variables.

So there are two ratios. That of `verified` to `bare` is what a start costs more, all in all. For the other,
what does not depend on our code is taken off: `stopped` less `bare`, which is one notification and one stop.
What remains should be at most 1.15 times `bare`. Differences are taken within a round.

On a machine that does something else, too, the medians are of its scheduler; as root, `chrt -f 10` in front
gives this program the processors for the seconds that it runs.
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
BOUND = 1.15
FLAGS = ["-std=gnu11", "-O2", f"-I{SOURCES}"]


def measure(rounds: int, count: int, directory: Path) -> dict[str, list[float]]:
    """Return microseconds a start, by mode and round; the modes take turns."""
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
    return times


def difference(times: dict[str, list[float]], more: str, less: str) -> float:
    """Return the median of what one mode takes more than another."""
    return statistics.median(a - b for a, b in zip(times[more], times[less], strict=True))


def report(times: dict[str, list[float]]) -> str:
    """Say what was measured, and whether verifying keeps its bound."""
    medians = {mode: statistics.median(values) for mode, values in times.items()}
    bare = medians["bare"]
    kernel, ours = difference(times, "stopped", "bare"), difference(times, "verified", "stopped")
    remains = (medians["verified"] - kernel) / bare
    lines = [f"{mode:<10} {value:8.1f} us  {value / bare:5.2f}x bare" for mode, value in medians.items()]
    lines += [
        f"kernel     {kernel:8.1f} us  stopped - bare: one notification, one stop, whoever verifies",
        f"ours       {ours:8.1f} us  verified - stopped: seizing, comparing, saying so",
        f"verified - kernel is {remains:.2f}x bare; at most {BOUND}x: {'yes' if remains <= BOUND else 'NO'}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print microseconds, and ratios to bare."""
    parser = argparse.ArgumentParser(description="What verifying an exec costs by itself.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=1_000, help="starts in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        times = measure(options.rounds, options.count, Path(directory))
    print(report(times))


if __name__ == "__main__":
    main()
