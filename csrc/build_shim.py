"""Describe the shim to CFFI: `cffi_modules` of setup.py imports `ffibuilder` from here."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
TABLES = ["tables.c", "patterns.c", "rules.c", "walker.c"]
"""Sources that evaluate compiled policies, and need nothing else."""
SOURCES = [
    *("listener.c", "target.c", "resolve.c", "files.c", "sockets.c", "identity.c", "spaces.c", "names.c"),
    *("engine.c", "flights.c", "held.c", "held_straight.c"),
    *("held_open.c", "held_names.c", "held_metadata.c", "held_sockets.c", "held_exec.c", "underway.c"),
    *("who.c", "journal.c", *TABLES),
]
HEADERS = [
    *("rampart.h", "cdef.h", "protocol.h", "newer.h", "engine.h", "held.h"),
    *("journal.h", "flights.h", "tables.h", "compiled.h"),
]
LAUNCHER = [
    *("launch.c", "child.c", "control.c", "environment.c", "install.c", "program.c"),
    *("scope.c", "guard.c", "limits.c", "tree.c", "witness.c"),
    *("trace.c", "process.c", "committed.c", "relatives.c"),
]
"""Sources of rampart-seccomp-launch, which setup.py builds."""
COMPILE_ARGS = ["-std=gnu11", "-O2", "-fvisibility=hidden"]
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wformat=2",
    "-Wconversion",
]
# Compiler flags are per extension, and the wrappers that CFFI generates are not written to these rules.
PRELUDE = """
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include "engine.h"
#include "flights.h"
#include "journal.h"
"""

ffibuilder = FFI()
ffibuilder.cdef((HERE / "cdef.h").read_text())
ffibuilder.set_source(
    "rampart_seccomp._shim",
    PRELUDE,
    # Relative to setup.py: setuptools wants it so.
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=["csrc"],
    depends=[f"csrc/{name}" for name in HEADERS],
    extra_compile_args=[*COMPILE_ARGS, *WARNINGS],
)
