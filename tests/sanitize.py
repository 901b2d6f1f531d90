"""Run tests with the C code of the harness under sanitizers: ``./dev sanitize [address|thread] [PYTEST...]``.

``address`` is AddressSanitizer with UndefinedBehaviorSanitizer, ``thread`` is ThreadSanitizer. The shim
is built into a directory of its own under build/ and takes the place of the ordinary one in the process
of pytest, and in what that forks. Launcher and programs are the ordinary ones: the runtime of a
sanitizer, which has to be loaded before all else, is taken out of the environment again before anything
is started. A report makes the run fail, whatever the tests say.

With RAMPART_SANITIZE_SECONDS the tests end at the first failure, or after so many seconds without one. Status
77: this machine cannot.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
SHIM = "RAMPART_SANITIZED_SHIM"
REPORTS = "RAMPART_SANITIZED_REPORTS"
SECONDS = "RAMPART_SANITIZE_SECONDS"
CANNOT = 77
FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fsanitize-recover=address"],
    "thread": ["-fsanitize=thread"],
}
RUNTIMES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
DEFAULT = [
    *("tests/broker/test_engine.py", "tests/broker/test_session.py"),
    *("tests/calls", "tests/policy/test_tables.py", "tests/fuzz"),
]


def options(kind: str, reports: Path) -> dict[str, str]:
    """What the runtimes are told: to go on after a report, which lands in a file that begins so."""
    common = f"log_path={reports}:halt_on_error=0:handle_segv=1"
    if kind == "thread":
        # CPython is not instrumented, so only what the shim calls of the C library counts. A forked child
        # goes on without the other threads, as any child of a harness.
        return {"TSAN_OPTIONS": f"{common}:ignore_noninstrumented_modules=1:die_after_fork=0:exitcode=0"}
    # An interpreter frees little at its end.
    own = f"{common}:detect_leaks=0:detect_stack_use_after_return=1:exitcode=0"
    return {"ASAN_OPTIONS": own, "UBSAN_OPTIONS": f"{common}:print_stacktrace=1"}


def build(kind: str, directory: Path) -> Path:
    """Compile the shim; gives the module's file."""
    shim = runpy.run_path(str(ROOT / "csrc" / "build_shim.py"))
    generated, module = directory / "_shim.c", directory / "_shim.abi3.so"
    shim["ffibuilder"].emit_c_code(str(generated))
    sources = [generated, *(ROOT / "csrc" / name for name in shim["SOURCES"])]
    words = [
        *shim["COMPILE_ARGS"],
        *FLAGS[kind],
        "-g",
        "-fno-omit-frame-pointer",
        "-fPIC",
        "-shared",
        "-pthread",
    ]
    include = [f"-I{ROOT / 'csrc'}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([compiler(), *words, *include, "-o", module, *sources], check=True)
    return module


def compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if found is None:
        cannot("no C compiler")
    return found


def cannot(why: str) -> NoReturn:
    """End, as this machine lacks something."""
    print(f"sanitize: {why}", file=sys.stderr)
    sys.exit(CANNOT)


def runtime(name: str) -> str:
    """Where the compiler has the library."""
    path = subprocess.check_output([compiler(), f"-print-file-name={name}"], text=True).strip()
    if not os.path.isabs(path):
        cannot(f"the compiler has no {name}")
    return os.path.realpath(path)


def main(arguments: list[str]) -> int:
    kind = "address"
    if arguments and arguments[0] in FLAGS:
        kind, *arguments = arguments
    directory = ROOT / "build" / f"sanitize-{kind}"
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("report*"):
        stale.unlink()
    preload = " ".join(map(runtime, RUNTIMES[kind]))
    module = build(kind, directory)
    environment = {
        **os.environ,
        **options(kind, directory / "report"),
        "LD_PRELOAD": preload,
        "PYTHONMALLOC": "malloc",
        SHIM: str(module),
        REPORTS: str(directory / "report"),
    }
    # A fault is the sanitizer's to report.
    pytest = [sys.executable, "-m", "pytest", "-q", "-m", "not long"]
    pytest += ["-p", "no:faulthandler", "-p", "tests.sanitize"]
    # ThreadSanitizer knows in advance where things are in memory.
    if kind == "thread" and (setarch := shutil.which("setarch")):
        pytest = [setarch, "-R", *pytest]
    status = run([*pytest, *(arguments or DEFAULT)], environment, float(os.environ.get(SECONDS, 0)))
    return status | tell(sorted(directory.glob("report*")))


def run(command: list[str], environment: dict[str, str], seconds: float) -> int:
    """Run pytest, no longer than that (0: to its end); give its status, 0 where time was up."""
    if not seconds:
        return subprocess.run(command, cwd=ROOT, env=environment).returncode
    with subprocess.Popen([*command, "-x"], cwd=ROOT, env=environment) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"sanitize: the tests are ended after {seconds:g} s; no failure until then", flush=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    return 0


def tell(reports: list[Path]) -> int:
    """Print each report once, however often it was made."""
    seen = set()
    for report in reports:
        for text in re.split(r"(?m)^=+\n|(?=^\S+: runtime error)", report.read_text(errors="replace")):
            text = re.sub(r"(?m)^ +#[1-9]\d+ .*\n", "", text)  # further out than ten calls is the interpreter
            about = re.sub(r"0x[0-9a-f]+|\d+", "", text)
            if text.strip() and about not in seen:
                seen.add(about)
                print(text)
    print(f"sanitize: {len(seen)} different reports" if seen else "sanitize: no reports")
    return 1 if reports else 0


def replace_shim(file: str) -> None:
    """In the process of pytest: be the shim, and leave nothing in the environment of what is started."""
    reports = os.fsencode(os.environ[REPORTS])
    for path in os.environ["LD_PRELOAD"].split():
        # That of undefined behaviour, beside another one, has no log_path; pytest keeps what is printed.
        ctypes.CDLL(path).__sanitizer_set_report_path(reports)
    settings = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
    for name in ("LD_PRELOAD", "PYTHONMALLOC", SHIM, REPORTS, *settings):
        os.environ.pop(name, None)
    spec = importlib.util.spec_from_file_location("rampart_seccomp._shim", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
elif SHIM in os.environ:
    replace_shim(os.environ[SHIM])
