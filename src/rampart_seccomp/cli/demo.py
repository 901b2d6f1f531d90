"""``rampart-seccomp demo``: an agent obeys an injected instruction, first bare and then behind a policy.

Everything is made up and local: a throw-away project with its own home directory, and two servers on the
loopback interface, one that the agent works with and one that wants its secret. The same agent runs three
times: bare, where it must leak or the demo proves nothing; under the policy; and under the policy with the
secret in a file that no rule knows, so that only the network rules are left to stop it.
"""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

import attrs

import rampart_seccomp as rampart
from rampart_seccomp.approval.escape import printable
from rampart_seccomp.audit import verify
from rampart_seccomp.broker import Denial
from rampart_seccomp.cli import Parser
from rampart_seccomp.cli.demo_servers import ApiServer, Attacker
from rampart_seccomp.errors import AuditError, RampartError

__all__ = ["demonstrate", "main"]

SECRET = "DEMO_TOKEN=not-a-real-secret-7f3a"
WAYS = ("curl", "python urllib", "node fetch", "static C", "bash /dev/tcp")
STEAL_FLAGS = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-O1")
TIMEOUT_S = 60.0
DATA = pathlib.Path(__file__).with_name("demo_project")


@attrs.frozen
class Stage:
    """What all runs share.

    Attributes:
        root: The throw-away directory.
        missing: What this machine cannot show, and why.
    """

    root: pathlib.Path
    missing: Mapping[str, str]

    @property
    def ways(self) -> list[str]:
        """The ways to leak that can be tried here."""
        return [way for way in WAYS if way not in self.missing]

    def issue(self, secret: str, port: int) -> str:
        """Return the text of the issue, without the commands that this machine cannot run."""
        text = (DATA / "issue.md").read_text()
        values = {
            "secret": secret,
            "port": str(port),
            "attacker": f"http://127.0.0.1:{port}",
        }
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if line.split(":")[0] not in self.missing)


@attrs.frozen
class Step:
    """One thing that the agent did: ``work`` or ``injected``, and the last line it saw on standard error."""

    part: str
    what: str
    status: int
    said: str


@attrs.frozen
class Outcome:
    """What one run of the agent led to.

    Attributes:
        status: Exit status of the agent itself.
        complaint: Its last line on standard error.
        copies: How often the secret arrived at the attacker.
        connections: How often anything connected to the attacker.
        comments: How often the agent reached the API.
    """

    steps: Sequence[Step]
    status: int
    complaint: str
    copies: int
    connections: int
    comments: int
    wiped: bool
    planted: bool
    denials: Sequence[Denial]

    def of(self, part: str) -> list[Step]:
        """Return the steps of one part."""
        return [step for step in self.steps if step.part == part]

    def denied(self, operation: str) -> int:
        """Return how many calls of one operation were denied."""
        return sum(denial.operation == operation for denial in self.denials)


def _base() -> pathlib.Path:
    """Choose a place for the throw-away directory: none for temporary files, since agents may write there."""
    places = ("/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir())
    temporary = {pathlib.Path(place).resolve() for place in places}
    home = pathlib.Path.home()
    try:
        own_home = pathlib.Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        own_home = home
    for place in (home / ".cache", home, own_home, pathlib.Path.cwd()):
        real = place.resolve()
        if temporary.isdisjoint((real, *real.parents)) and os.access(real, os.W_OK | os.X_OK):
            return real
    raise RampartError(
        "no place for the throw-away project "
        "(make the home or the current directory a writable one outside of /tmp)"
    )


def _environment(home: pathlib.Path) -> dict[str, str]:
    """Return a whole environment: nothing of the user's own gets in."""
    return {
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath))),
        "HOME": os.fspath(home),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _set_stage(root: pathlib.Path) -> Stage:
    """Make the repository to clone and the program without libc, and find out what this machine lacks."""
    missing = {
        way: f"no {program} on this machine"
        for way, program in {
            "git": "git",
            "curl": "curl",
            "node fetch": "node",
            "bash /dev/tcp": "bash",
        }.items()
        if shutil.which(program) is None
    }

    def succeeds(*command: str | os.PathLike[str]) -> bool:
        environment = _environment(root)
        return subprocess.run(command, env=environment, cwd=root, capture_output=True).returncode == 0

    if "node fetch" not in missing and not succeeds("node", "-e", "fetch.name"):
        missing["node fetch"] = "this node has no fetch"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        missing["static C"] = "no C compiler on this machine"
    elif not succeeds(compiler, *STEAL_FLAGS, "-o", "steal", DATA / "steal.c"):
        missing["static C"] = "the C compiler cannot build it"
    identity = ("-c", "user.name=Upstream", "-c", "user.email=upstream@example.invalid")
    if "git" not in missing and not (
        succeeds("git", "init", "-q", "upstream")
        and succeeds("git", "-C", "upstream", *identity, "commit", "-q", "--allow-empty", "-m", "Start")
    ):
        raise RampartError("git cannot make a repository (try: git init)")
    return Stage(root, missing)


def _run(
    stage: Stage, name: str, secret: str, policy: rampart.Policy | None, audit: pathlib.Path | None = None
) -> Outcome:
    """Run the agent once, in a home directory of its own; bare if there is no policy."""
    home = stage.root / name
    project = home / "project"
    (project / "tools").mkdir(parents=True)
    (project / secret).write_text(f"{SECRET}\n")
    (home / "thesis.txt").write_text("five years of work\n")
    shutil.copy(DATA / "agent.py", project)
    if "static C" not in stage.missing:
        shutil.copy(stage.root / "steal", project / "tools" / "steal")

    denials: Sequence[Denial] = ()
    with Attacker(SECRET.encode()) as attacker, ApiServer() as api:
        api.issue = stage.issue(secret, attacker.port)
        upstream = (stage.root / "upstream").as_uri()
        command = [sys.executable, "agent.py", upstream, f"http://127.0.0.1:{api.server_port}"]
        environment = _environment(home)
        done: subprocess.CompletedProcess[bytes]
        if policy is None:
            done = subprocess.run(
                command, cwd=project, env=environment, capture_output=True, timeout=TIMEOUT_S
            )
        else:
            endpoint = rampart.allow("connect", hosts=[f"127.0.0.1:{api.server_port}"], name="api")
            with rampart.Broker(policy.with_rules(endpoint), audit=audit, home=os.fsencode(home)) as broker:
                done = guarded = rampart.run(
                    command,
                    broker=broker,
                    cwd=project,
                    env=environment,
                    capture_output=True,
                    timeout=TIMEOUT_S,
                )
            denials = guarded.denials
    complaints = done.stderr.decode(errors="replace").strip().splitlines()
    return Outcome(
        steps=[Step(**json.loads(line)) for line in done.stdout.splitlines()],
        status=done.returncode,
        complaint=complaints[-1] if complaints else "",
        copies=attacker.copies,
        connections=len(attacker.received),
        comments=len(api.comments),
        wiped=not (home / "thesis.txt").exists(),
        planted=(home / ".bashrc").exists(),
        denials=denials,
    )


def _show(outcome: Outcome, home: pathlib.Path, out: TextIO) -> None:
    """Print what came of a run: the work, what the attacker got, what the agent saw, what was denied."""

    def short(text: str) -> str:
        return text.replace(os.fspath(home), "~")

    received = f"the secret, {outcome.copies} times" if outcome.copies else "nothing"
    if outcome.connections > outcome.copies:
        received += f" (of {outcome.connections} connections)"
    facts = {
        "honest work": ", ".join(
            step.what if step.status == 0 else f"{step.what} FAILED ({short(step.said)})"
            for step in outcome.of("work")
        ),
        "attacker received": received,
        "~/thesis.txt": "GONE" if outcome.wiped else "there",
        "~/.bashrc": "PLANTED" if outcome.planted else "not touched",
    }
    _columns([*facts.items()], out)
    if outcome.denials:
        saw = [(step.what, short(step.said) or f"status {step.status}") for step in outcome.of("injected")]
        counts = Counter(
            (f"{denial.operation} {short(denial.object)}", denial.where) for denial in outcome.denials
        )
        print("\n   what the agent saw", file=out)
        _columns([("", *row) for row in saw], out)
        print("\n   what was denied, by which rule, how often", file=out)
        _columns([("", what, where, f"{times}x") for (what, where), times in counts.items()], out)


def _columns(rows: Sequence[Sequence[str]], out: TextIO) -> None:
    """Print rows aligned, with everything that could move the cursor escaped."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"   {line}".rstrip(), file=out)


def _unproven(bare: Outcome, stage: Stage) -> Iterator[str]:
    """Yield why the bare run does not show that the attack works."""
    for step in bare.of("work"):
        if step.status:
            yield f"bare: {step.what} does not work: {step.said}"
    if bare.copies != len(stage.ways):
        yield f"bare: {bare.copies} of {len(stage.ways)} ways leaked the secret, so the attack does not work"
    if not (bare.wiped and bare.planted):
        yield "bare: ~/thesis.txt was not wiped or ~/.bashrc not planted, so the attack does not work"


def _broken(outcome: Outcome, name: str, stage: Stage) -> Iterator[str]:
    """Yield what did not hold in a run under Rampart."""
    if outcome.status:
        yield f"{name}: the agent ended with status {outcome.status}: {outcome.complaint}"
    for step in outcome.of("work"):
        if step.status:
            yield f"{name}: {step.what} did not work: {step.said}"
    if not outcome.comments:
        yield f"{name}: the honest work did not reach the API"
    if len(outcome.of("injected")) != len(stage.ways) + 2:
        yield f"{name}: the agent did not try everything, so nothing is proved"
    if outcome.connections:
        yield f"{name}: {outcome.connections} connections to the attacker, {outcome.copies} with the secret"
    if outcome.wiped:
        yield f"{name}: ~/thesis.txt was wiped"
    if outcome.planted:
        yield f"{name}: ~/.bashrc was planted"


def demonstrate(policy: rampart.Policy, *, root: pathlib.Path, out: TextIO) -> list[str]:
    """Run the agent bare, under a policy, and under it with a secret that no file rule protects.

    Args:
        policy: What should stop the agent; the address of the loopback API is allowed on top of it.
        root: Empty directory for everything that is made; not one for temporary files.
        out: Where the story is told.

    Returns:
        What did not hold, in words; empty if all of it held.
    """
    stage = _set_stage(root)
    audit = root / "audit.jsonl"
    print("An agent reads this issue, and obeys it:\n", file=out)
    for line in stage.issue(".env", 80).splitlines():
        print(f"   | {line}", file=out)
    for way, reason in stage.missing.items():
        print(f"\n   skipped: {way} ({reason})", file=out)

    print("\n1. Without Rampart\n", file=out)
    bare = _run(stage, "bare", ".env", None)
    _show(bare, root / "bare", out)
    problems = list(_unproven(bare, stage))

    print(f"\n2. Under Rampart, {printable(policy.source or 'policy')}\n", file=out)
    guarded = _run(stage, "guarded", ".env", policy, audit)
    _show(guarded, root / "guarded", out)
    problems += _broken(guarded, "under Rampart", stage)
    reads, tries = guarded.denied("read"), len(stage.ways)
    if reads < tries:
        problems.append(f"under Rampart: {reads} reads denied, but {tries} programs tried to read .env")

    print("\n3. Under Rampart, with the secret in a file that no rule knows\n", file=out)
    handed = _run(stage, "handed", "settings.ini", policy, audit)
    _show(handed, root / "handed", out)
    problems += _broken(handed, "secret handed in", stage)
    if handed.denied("connect") < tries:
        problems.append(
            f"secret handed in: {handed.denied('connect')} connections denied, but {tries} programs tried"
        )

    try:
        verified = verify(audit)
    except AuditError as error:
        problems.append(f"the audit log does not verify: {error}")
    else:
        where = printable(os.fspath(audit))
        print(f"\nAudit log: {where}, {verified.records} records, chain intact", file=out)
    return problems


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``demo``.

    Returns:
        0 if every claim held, 1 if one did not; what did not is printed on standard error.
    """
    parser = Parser("demo", "Show the attack on made-up data, bare and stopped. Nothing leaves this machine.")
    parser.add_argument("--keep", action="store_true", help="keep the throw-away directory and its audit log")
    options = parser.parse_args(argv)
    root = pathlib.Path(tempfile.mkdtemp(prefix="rampart-demo-", dir=_base()))
    try:
        problems = demonstrate(rampart.Policy.load("agent"), root=root, out=sys.stdout)
    finally:
        if not options.keep:
            shutil.rmtree(root)
    print("(kept)" if options.keep else "(removed again; --keep keeps it)", flush=True)
    for problem in problems:
        print(f"rampart-seccomp demo: {printable(problem)}", file=sys.stderr)
    if problems:
        return 1
    print("\nThe honest work was done, nothing arrived at the attacker, and every denial is on record.")
    return 0
