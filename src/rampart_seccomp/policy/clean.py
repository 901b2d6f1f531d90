"""Environment variables that make a program run code which nobody named when it was started.

A program is known by its image. That says little if a variable makes the image load something else, so a
process counts as the program only if no such variable was set for it. What makes a program *start* another
one (``GIT_SSH_COMMAND``, ``PAGER``) is not among them: the other program is known by its own image.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable

__all__ = ["clean"]

LOADED = (
    # The dynamic loader (ld.so(8)) and what glibc itself loads or reads into its own working.
    "LD_*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "GETCONF_DIR",
    "LOCPATH",
    "NLSPATH",
    "MALLOC_TRACE",
    "RESOLV_HOST_CONF",
    # Plugins of libraries that many programs are linked with.
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "P11_KIT_*",
    "KRB5_CONFIG",
    "GSS_MECH_*",
    "SASL_PATH",
    "SASL_CONF_PATH",
    "GIO_EXTRA_MODULES",
    "GIO_MODULE_DIR",
    "GTK*_MODULES",
    "GTK_PATH",
    "GTK_EXE_PREFIX",
    "GTK_IM_MODULE_FILE",
    "GDK_PIXBUF_MODULE*",
    "GST_PLUGIN_*",
    "QT_PLUGIN_PATH",
    "QT_QPA_PLATFORM_PLUGIN_PATH",
    "QML*_IMPORT_PATH",
    "LIBGL_DRIVERS_PATH",
    "LIBVA_DRIVERS_PATH",
    "VK_*",
    "__EGL_*",
    "OCL_ICD_*",
)
"""For every program."""

INTERPRETED = {
    r"python|pypy": (
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONINSPECT",
        "PYTHONUSERBASE",
        "PYTHONPLATLIBDIR",
        "PYTHONEXECUTABLE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONBREAKPOINT",
        "PYTHONWARNINGS",
        "PYTHON_PRESITE",
        "PYTEST_ADDOPTS",
        "PYTEST_PLUGINS",
    ),
    r"node|nodejs|electron": (
        "NODE_OPTIONS",
        "NODE_PATH",
        "NODE_REPL_EXTERNAL_MODULE",
        "ELECTRON_RUN_AS_NODE",
    ),
    r"bun": ("BUN_*", "NODE_OPTIONS", "NODE_PATH"),
    r"deno": ("DENO_*",),
    r"bash|rbash|sh": ("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "BASH_FUNC_*"),
    r"dash|ash|ksh|mksh|busybox|yash": ("ENV", "PS4", "SHELLOPTS"),
    r"zsh": ("ZDOTDIR", "ENV", "PS4", "MODULE_PATH", "FPATH"),
    r"perl": ("PERL5OPT", "PERL5LIB", "PERLLIB", "PERL5DB"),
    r"ruby|jruby": ("RUBYOPT", "RUBYLIB", "GEM_HOME", "GEM_PATH", "BUNDLE_*", "JRUBY_OPTS"),
    r"java|javac|jshell|jar|keytool": (
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "JDK_JAVAC_OPTIONS",
        "_JAVA_OPTIONS",
        "CLASSPATH",
    ),
    r"php|php-cgi|php-fpm": ("PHPRC", "PHP_INI_SCAN_DIR"),
    r"lua|luajit|nvim": ("LUA_INIT*", "LUA_PATH*", "LUA_CPATH*"),
    r"tclsh|wish|expect": ("TCLLIBPATH", "TCL_LIBRARY", "TK_LIBRARY", "TCL*_TM_PATH"),
    r"R|Rscript": ("R_*",),
    r"julia": ("JULIA_*",),
    r"guile": ("GUILE_*",),
    r"erl|erlexec|beam\.smp": ("ERL_*",),
    r"dotnet|mono": ("DOTNET_*", "CORECLR_*", "COMPlus_*", "MONO_*"),
    r"vim|vi|view|ex|nvim|gvim": ("VIMINIT", "EXINIT", "GVIMINIT", "VIM", "VIMRUNTIME"),
    r"emacs": ("EMACSLOADPATH", "EMACSDATA", "EMACSPATH"),
    r"ssh|scp|sftp|ssh-add|ssh-keygen": ("SSH_SK_PROVIDER",),
}
"""For images whose base name is one of these, a version behind it aside."""


def _names(patterns: Iterable[str]) -> re.Pattern[bytes]:
    text = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile(text.encode(), re.DOTALL)


_LOADED = _names(LOADED)


@functools.lru_cache(maxsize=1024)
def _planting(base: bytes) -> tuple[re.Pattern[bytes], ...]:
    """Give the patterns that count for images of a name; few are needed, and to compile all takes a while."""
    found = [_LOADED]
    for programs, patterns in INTERPRETED.items():
        beginnings = tuple(programs.replace("\\", "").encode().split(b"|"))
        # env(1) starts what its arguments name, such as the interpreter behind a script's `#!/usr/bin/env`.
        if base == b"env" or (
            base.startswith(beginnings)
            and re.fullmatch(rf"(?:{programs})(?:-?[0-9][0-9.]*t?)?(?:\.[a-z]+)?".encode(), base)
        ):
            found.append(_names(patterns))
    return tuple(found)


def clean(path: bytes, variables: Iterable[bytes]) -> bool:
    """Say whether a program is started without variables that make it run other code.

    Args:
        path: Real path of the image; of a script, of its last interpreter.
        variables: Names of the variables that count, or ``NAME=value`` each.
    """
    planting = _planting(os.path.basename(path))
    return not any(
        pattern.fullmatch(variable.partition(b"=")[0]) for variable in variables for pattern in planting
    )
