"""What every test may use: a throw-away project with its own home, a C compiler, an unprivileged user.

The fixtures know only the public interface of the package.
"""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import http.server
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
NOBODY = 65534
EVERYTHING = ("read", "write", "exec", "connect", "listen")


# By default a property is tried on 100 examples.
settings.register_profile("thorough", max_examples=1_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--first-cases", action="store_true", help="of each test, run only the first case")


def pytest_configure(config: pytest.Config) -> None:
    """Make the environment of the tests the same, wherever they are started."""
    # A shell's background job ignores SIGINT and SIGQUIT, nohup(1) SIGHUP; commands inherit that.
    for signo in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A version manager's python3 is a shell script that starts a dozen programs first, each of them judged.
    found = shutil.which("python3")
    if found is not None and Path(found).read_bytes()[:2] == b"#!":
        real = Path(sys.executable).resolve().parent
        if (real / "python3").exists():
            os.environ["PATH"] = f"{real}{os.pathsep}{os.environ['PATH']}"
    # Hundreds of commands import the package, and would compile it where PYTHONDONTWRITEBYTECODE is set.
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(REPOSITORY / "src", quiet=2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what takes longest of what is quick; with --first-cases, keep one case of each test."""

    def is_first(item: pytest.Item) -> bool:
        return item.get_closest_marker("first") is not None and item.get_closest_marker("long") is None

    items.sort(key=is_first, reverse=True)
    if not config.getoption("--first-cases"):
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.partition("[")[0], item)
    config.hook.pytest_deselected(items=[item for item in items if item not in first.values()])
    items[:] = first.values()


class Project:
    """A project directory, a home that is nobody's, and a place for what Rampart itself writes.

    Attributes:
        base: Holds all of it; real path.
        root: The project, the working directory of the commands.
        home: The value of HOME.
        audit: Where `run` writes the audit log; outside of what the command may touch.
        environment: Environment of the commands; nothing of the real home is in it.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "project"
        self.home = base / "home"
        self.audit = base / "rampart" / "audit.jsonl"
        for directory in (self.root, self.home, self.audit.parent):
            directory.mkdir()
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CEILING_DIRECTORIES": str(base),
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def write(self, name: str, content: str, mode: int = 0o644) -> Path:
        """Make a file of the project, with the directories above it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path

    def bare(self, argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command without Rampart."""
        options = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
        environment = self.environment | options.pop("env", {})
        return subprocess.run([str(word) for word in argv], cwd=self.root, env=environment, **options)

    def run(self, argv: Sequence[str | Path], policy: Any, **options: Any) -> Any:
        """Run a command behind a policy, through the Python interface."""
        import rampart_seccomp as rampart

        options = {"capture_output": True, "text": True, "timeout": 60, "audit": self.audit} | options
        return rampart.run(
            [str(word) for word in argv],
            policy=policy,
            cwd=self.root,
            env=self.environment | options.pop("env", {}),
            **options,
        )

    def run_cli(
        self, argv: Sequence[str | Path], policy: str | Path, *flags: str, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command behind a policy, through the command line."""
        path = os.pathsep.join(part for part in (*package_path(), os.environ.get("PYTHONPATH", "")) if part)
        command = [sys.executable, "-m", "rampart_seccomp", "run", "--policy", policy, "--audit", self.audit]
        options["env"] = {"PYTHONPATH": path} | options.get("env", {})
        return self.bare([*command, *flags, "--", *argv], **options)

    def records(self) -> list[dict[str, Any]]:
        """The decisions in the audit log, oldest first; records about a session as such are left out."""
        if not self.audit.exists():
            return []
        records = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [record for record in records if "verdict" in record]

    def denials(self, rule: str) -> list[dict[str, Any]]:
        """The audit records of what this rule denied."""
        return [record for record in self.records() if (record["rule"], record["verdict"]) == (rule, "deny")]


def package_path() -> list[str]:
    """The directory that holds the package under test, for a child's PYTHONPATH."""
    import rampart_seccomp

    return [str(Path(rampart_seccomp.__file__).parent.parent)]


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A directory for this session.

    Under the ignored build directory of the repository, or the home, where that can be written and is not
    itself temporary: profiles allow all of /tmp, so a project there would not show what they say about one.
    """
    made = None
    for parent in (REPOSITORY / "build", Path.home()):
        temporary = any(parent.resolve().is_relative_to(place) for place in ("/tmp", "/var/tmp", "/dev/shm"))
        try:
            parent.mkdir(exist_ok=True)
            made = None if temporary else tempfile.mkdtemp(prefix="rampart-test-", dir=parent)
        except OSError:
            continue
        if made is not None:
            break
    made = made or tempfile.mkdtemp(prefix="rampart-test-")
    os.chmod(made, 0o755)
    yield Path(made).resolve()
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh project; HOME of the test process is its home, too."""
    made = Project(Path(tempfile.mkdtemp(dir=workspace)))
    monkeypatch.setenv("HOME", str(made.home))
    return made


@pytest.fixture
def allow_all() -> Any:
    """The policy that restricts nothing."""
    import rampart_seccomp as rampart

    return rampart.Policy(rules=[rampart.allow(list(EVERYTHING), name="everything")], features=["sysv-ipc"])


@pytest.fixture
def deny_rule() -> Callable[..., Any]:
    """Make a policy that allows everything but what one deny rule named ``secret`` covers."""
    import rampart_seccomp as rampart

    def make(operations: str | Sequence[str], **conditions: Any) -> Any:
        chosen = [operations] if isinstance(operations, str) else list(operations)
        return rampart.Policy(
            rules=[
                rampart.allow(list(EVERYTHING), name="everything"),
                rampart.deny(chosen, name="secret", **conditions),
            ],
            features=["sysv-ipc"],
        )

    return make


@pytest.fixture(scope="session")
def programs(workspace: Path) -> Path:
    """A directory for what is compiled, whose names say from what: of all sessions, where that can be."""
    shared = REPOSITORY / "build" / "programs"
    try:
        shared.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=shared).close()
    except OSError:
        shared = workspace / "programs"
        shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def compiled(programs: Path) -> Callable[..., Path]:
    """Compile a C source, once for all who want it; gives the program's path."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    made: dict[tuple[Path, tuple[str, ...]], Path] = {}
    version = subprocess.check_output([compiler, "--version"])

    def build(source: Path, *flags: str) -> Path:
        key = (source, flags)
        if key not in made:
            words = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *flags]
            text = subprocess.check_output([*words, "-E", "-P", source], timeout=120)
            digest = hashlib.sha256(b"\0".join([version, *map(os.fsencode, words), text])).hexdigest()[:16]
            program = programs / f"{source.stem}-{digest}"
            if not program.exists():
                new = Path(tempfile.mkdtemp(dir=programs)) / "program"
                try:
                    subprocess.run([*words, "-o", new, source], check=True, timeout=120)
                    new.rename(program)
                finally:
                    shutil.rmtree(new.parent)
            made[key] = program
        return made[key]

    return build


@pytest.fixture(scope="session")
def fuzzer(workspace: Path) -> Callable[..., Path]:
    """Build a driver of tests/fuzz with sources of csrc/, under sanitizers; gives the program's path."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a compiler")
    flags = runpy.run_path(str(REPOSITORY / "csrc" / "build_shim.py"))
    words = [compiler, *flags["COMPILE_ARGS"], *flags["WARNINGS"], "-Werror", "-g", "-pthread"]
    words += ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{REPOSITORY / 'csrc'}"]
    directory = Path(tempfile.mkdtemp(dir=workspace))
    empty = ["-x", "c", "-", "-o", str(directory / "empty")]
    if subprocess.run([*words, *empty], input="int main(void){return 0;}", text=True).returncode:
        pytest.skip("no sanitizers")

    def compile_once(made: Path, *what: str | Path) -> Path:
        if not made.exists():
            done = subprocess.run([*words, "-o", made, *what], capture_output=True, text=True)
            assert done.stderr == ""
        return made

    def build(driver: str, sources: Sequence[str]) -> Path:
        objects = [
            compile_once(directory / f"{name}.o", "-c", REPOSITORY / "csrc" / name) for name in sources
        ]
        return compile_once(directory / driver, REPOSITORY / "tests" / "fuzz" / f"{driver}.c", *objects)

    return build


class ByName:
    """Commands behind a policy about names, with a name server and sites of the test's own.

    Attributes:
        server: Stands for the host's name server.
        requests: Paths that were asked of the sites.
    """

    def __init__(self, project: Project, server: Any) -> None:
        self.server = server
        self.requests: list[str] = []
        self._project = project
        self._closing = contextlib.ExitStack()

    def site(self, host: str, directory: Path | None = None) -> int:
        """Serve HTTP on an address; without a directory, "hello". Gives the port."""
        requests = self.requests

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given, directory=None if directory is None else str(directory))

            def do_GET(self) -> None:
                requests.append(self.path)
                if directory is not None:
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"hello\n")

            def log_message(self, *given: Any) -> None:
                """Say nothing."""

        class Site(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        site = Site((host, 0), Handler)
        self._closing.callback(site.server_close)
        self._closing.callback(site.shutdown)
        threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
        return site.server_port

    def policy(self, *hosts: str, **rule: Any) -> Any:
        """Give a policy that allows everything but connections, and those by rule."""
        import rampart_seccomp as rampart

        files = rampart.allow(["read", "write", "exec", "listen"], name="files")
        return rampart.Policy(
            rules=[files, rampart.allow("connect", hosts=hosts, name="sites", **rule)], features=["sysv-ipc"]
        )

    def broker(self, policy: Any, **options: Any) -> Any:
        """Give a broker that asks the test's name server."""
        import rampart_seccomp as rampart

        return rampart.Broker(policy, _upstream=self.server.upstream(), **options)

    def run(self, argv: Sequence[str | Path], policy: Any, **options: Any) -> Any:
        """Run a command behind a policy."""
        import rampart_seccomp as rampart

        on_ask = options.pop("on_ask", None)
        environment = self._project.environment | options.pop("env", {})
        options = {"capture_output": True, "text": True, "timeout": 60} | options
        with self.broker(policy, audit=self._project.audit, on_ask=on_ask) as broker:
            return rampart.run(
                [str(word) for word in argv],
                broker=broker,
                cwd=self._project.root,
                env=environment,
                **options,
            )

    def close(self) -> None:
        """End the servers."""
        self._closing.close()
        self.server.close()


@pytest.fixture
def by_name(project: Project) -> Iterator[ByName]:
    """Commands that reach names. What stands for the internet is in 127.200/16 (tests/naming.py)."""
    from naming import NameServer

    made = ByName(project, NameServer({}))
    yield made
    made.close()


@pytest.fixture
def as_nobody() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as the unprivileged user 65534, without groups and without capabilities."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv")

    def run(argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
        options = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
        # The shell makes the last exec happen without any capability left, so that permissions count.
        return subprocess.run(
            [*command, "/bin/sh", "-c", 'exec "$@"', "sh", *(str(word) for word in argv)], **options
        )

    return run
