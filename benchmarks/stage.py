"""Where measuring takes place: built programs, a directory with the files they use, and running harnesses."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import attrs

from benchmarks.figures import Figure, Rounds

__all__ = ["ROOT", "Done", "Harness", "Interrupted", "NotMeasured", "Stage", "Way", "take_turns"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = Path(__file__).resolve().parent / "src"
FLAGS = ("-std=gnu11", "-O2", "-pthread")
LARGE = 4 << 20

PATIENCE_SECONDS = 60.0
"""For a harness to answer, beyond the time that it gives a command."""


class NotMeasured(Exception):
    """Something does not run here; the message says why."""


class Interrupted(Exception):
    """Somebody wants to see the numbers now.

    Attributes:
        figures: What the rounds gave until then.
    """

    def __init__(self, figures: list[Figure]) -> None:
        super().__init__("interrupted")
        self.figures = figures


@attrs.frozen
class Done:
    """A command that has ended.

    Attributes:
        status: Its exit status.
        seconds: From before its start to after its end, as the harness sees it.
        output: Standard output and error.
        held: How many of its calls were held, by who answered them; empty if nobody counts.
    """

    status: int
    seconds: float
    output: str
    held: dict[str, int] = attrs.Factory(dict)

    def checked(self) -> Done:
        """Return it if the command succeeded."""
        if self.status:
            said = " ".join(self.output.split())
            raise NotMeasured(f"exit status {self.status}: {said[-200:] or 'no output'}")
        return self


class Harness:
    """A process that runs commands one way. To be closed.

    Args:
        stage: Where.
        module: Which of `benchmarks.harnesses`.
        options: More of its command line.
        python: The interpreter; None for this one.
    """

    def __init__(
        self, stage: Stage, module: str, options: Sequence[str] = (), python: str | None = None
    ) -> None:
        self._output = stage.directory / f"output-{id(self)}"
        log = stage.directory / f"{module}.log"
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    python or sys.executable,
                    "-m",
                    f"benchmarks.harnesses.{module}",
                    "--directory",
                    str(stage.project),
                    *options,
                ],
                cwd=ROOT,
                env=stage.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # An interrupt is for us: we end them.
                start_new_session=True,
            )
        self.pid = self._process.pid
        try:
            self._reply()
        except NotMeasured as error:
            self.close()
            tail = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise NotMeasured(f"{module} does not start: {error} {' '.join(tail)}") from None

    def run(self, argv: Sequence[str | Path], cwd: Path, timeout: float = 120.0) -> Done:
        """Run a command.

        Raises:
            NotMeasured: The harness failed at it, not the command.
        """
        request = {
            "argv": [str(word) for word in argv],
            "cwd": str(cwd),
            "output": str(self._output),
            "timeout": timeout,
        }
        reply = self._ask(request, timeout + PATIENCE_SECONDS)
        return Done(
            int(str(reply["status"])),
            float(str(reply["seconds"])),
            self._output.read_text(errors="replace"),
            dict(reply["held"]),  # type: ignore[call-overload]
        )

    @contextlib.contextmanager
    def spinning(self) -> Iterator[None]:
        """While inside, a Python thread of the harness keeps its interpreter busy."""
        self._ask({"spin": True})
        try:
            yield
        finally:
            self._ask({"spin": False})

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()
        self._process.stdout.close()
        self._output.unlink(missing_ok=True)

    @property
    def ended(self) -> bool:
        """Whether it has died, or was given up because it did not answer."""
        return self._process.poll() is not None

    def _ask(self, request: dict[str, object], patience: float = PATIENCE_SECONDS) -> dict[str, object]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._gone("the harness has ended") from None
        return self._reply(patience)

    def _reply(self, patience: float = PATIENCE_SECONDS) -> dict[str, object]:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], patience)
        if not readable:
            raise self._gone(f"the harness does not answer within {patience:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._gone("the harness has ended")
        reply: dict[str, object] = json.loads(line)
        if "error" in reply:
            raise NotMeasured(str(reply["error"]))
        return reply

    def _gone(self, message: str) -> NotMeasured:
        """Make sure that it has ended: its pipes may have closed a moment before."""
        self._kill()
        return NotMeasured(message)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


@attrs.frozen
class Way:
    """A way to run a command: a harness, and what stands before the command.

    Attributes:
        name: In tables.
        start: Starts the harness on a stage, or raises NotMeasured. Ways with the same one share the harness.
        prefix: From the working directory, what comes before argv.
    """

    name: str
    start: Callable[[Stage], Harness]
    prefix: Callable[[Stage, Path], Sequence[str | Path]] = lambda stage, cwd: ()


class Stage:
    """Builds programs and files when they are first wanted, and ends the harnesses at the end.

    Args:
        directory: Kept between runs; throw it away as you like.

    Attributes:
        directory: The same, real.
        project: Where the calls are made: a project with a `.env`, which the profile `agent` denies.
        environment: Of all harnesses and commands: little, and nothing of the user's settings.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.project = self.directory / "project"
        home = self.directory / "home"
        for made in (self.project, home):
            made.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self.directory),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INDEX": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        self._harnesses: dict[Callable[[Stage], Harness], Harness | NotMeasured] = {}
        self._built: dict[str, Path] = {}
        self._furnish()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for harness in self._harnesses.values():
            if isinstance(harness, Harness):
                harness.close()
        self._harnesses.clear()

    def program(self, name: str, *more: str | Path) -> Path:
        """Return a measuring program, built from its source and what else goes into it.

        Raises:
            NotMeasured: It does not compile.
        """
        if name not in self._built:
            built = self.directory / name
            argv = ["cc", *FLAGS, "-o", built, SOURCES / f"{name}.c", *more]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotMeasured(f"{name}.c does not compile: {done.stderr.strip()[:200]}")
            self._built[name] = built
        return self._built[name]

    def harness(self, way: Way) -> Harness:
        """Return the harness of a way, which is started when it is first wanted.

        Raises:
            NotMeasured: It cannot be started here.
        """
        if way.start not in self._harnesses:
            try:
                self._harnesses[way.start] = way.start(self)
            except NotMeasured as error:
                self._harnesses[way.start] = error
        found = self._harnesses[way.start]
        if isinstance(found, NotMeasured):
            raise found
        return found

    def run(self, way: Way, argv: Sequence[str | Path], cwd: Path, timeout: float = 120.0) -> Done:
        """Run a command one way; it must succeed.

        Raises:
            NotMeasured: It did not, or the way does not exist here.
        """
        harness = self.harness(way)
        try:
            return harness.run([*way.prefix(self, cwd), *argv], cwd, timeout).checked()
        finally:
            if harness.ended:
                # What fails here need not fail elsewhere: the next command gets another one.
                harness.close()
                del self._harnesses[way.start]

    def quantiles(
        self, way: Way, call: str, count: int, seconds: float, *options: str
    ) -> tuple[float, float]:
        """Time a call one way; return median and 99th percentile in microseconds."""
        argv: list[str | Path] = [
            self.program("calls"),
            *options,
            call,
            str(count),
            str(seconds),
            self.project,
        ]
        output = self.run(way, argv, self.project, timeout=seconds * 20 + 60).output
        median, p99 = output.split()[-2:]
        return float(median), float(p99)

    def _furnish(self) -> None:
        """Make the files that the calls use."""
        for name in ("file", ".env", "asked"):
            (self.project / name).write_text("x\n")
        (self.project / "large").write_bytes(bytes(LARGE))
        (self.project / "new").unlink(missing_ok=True)
        if not (self.project / "fifo").exists():
            os.mkfifo(self.project / "fifo")
        subprocess.run(
            ["cc", "-O2", "-static", "-x", "c", "-", "-o", self.project / "static"],
            input=b"int main(void) { return 0; }",
            check=True,
        )


def take_turns(
    rounds: Rounds,
    count: int,
    names: Sequence[str],
    ways: Sequence[Way],
    measure: Callable[[str, Way], tuple[float, float | None]],
    say: Callable[[str], None] = lambda text: None,
) -> list[Figure]:
    """Measure everything in rounds in which the ways take turns, since the machine changes with time.

    Args:
        rounds: Collects.
        count: How many.
        names: What is measured.
        ways: How it is run; each round begins with another one.
        measure: Returns a round's median and 99th percentile; what raises NotMeasured is not tried again.
        say: Told how far it is.

    Raises:
        Interrupted: By SIGINT or SIGTERM.
    """
    try:
        for number in range(count):
            order = [*ways[number % len(ways) :], *ways[: number % len(ways)]]
            for name in names:
                say(f"{rounds.family} {number + 1}/{count} {name}")
                for way in order:
                    _measure(rounds, number, name, way, measure)
    except KeyboardInterrupt:
        raise Interrupted(rounds.figures()) from None
    return rounds.figures()


def _measure(
    rounds: Rounds,
    number: int,
    name: str,
    way: Way,
    measure: Callable[[str, Way], tuple[float, float | None]],
) -> None:
    if rounds.gave_up(name, way.name):
        return
    try:
        rounds.add(number, name, way.name, *measure(name, way))
    except NotMeasured as reason:
        rounds.give_up(name, way.name, str(reason))
