"""Which environment variables take from a program what it is known by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.policy.clean import clean

ORDINARY = (
    b"PATH HOME LANG LC_ALL TERM TMPDIR PWD SHLVL _ OLDPWD CI MAKEFLAGS MFLAGS GIT_DIR "
    b"GIT_EXEC_PATH GIT_PREFIX GIT_SSH_COMMAND npm_config_cache npm_lifecycle_event NODE INIT_CWD "
    b"VIRTUAL_ENV PYTHONUNBUFFERED PYTHONHASHSEED PYTHONDONTWRITEBYTECODE "
    b"PYTEST_CURRENT_TEST CFLAGS SSH_AUTH_SOCK OLD_LD_PRELOAD"
).split()


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        (b"/usr/bin/ssh", b"LD_PRELOAD"),
        (b"/usr/bin/ssh", b"LD_AUDIT"),
        (b"/usr/bin/ssh", b"LD_LIBRARY_PATH"),
        (b"/usr/bin/ssh", b"GLIBC_TUNABLES"),
        (b"/usr/bin/ssh", b"GCONV_PATH"),
        (b"/usr/bin/ssh", b"NLSPATH"),
        (b"/usr/bin/ssh", b"SSH_SK_PROVIDER"),
        (b"/usr/lib/git-core/git-remote-https", b"OPENSSL_CONF"),
        (b"/usr/bin/python3.11", b"PYTHONPATH"),
        (b"/usr/bin/python3.13t", b"PYTHONSTARTUP"),
        (b"/usr/bin/python", b"PYTHONHOME"),
        (b"/usr/bin/node", b"NODE_OPTIONS"),
        (b"/usr/bin/nodejs", b"NODE_PATH"),
        (b"/usr/bin/bash", b"BASH_ENV"),
        (b"/bin/bash", b"BASH_FUNC_ls%%"),
        (b"/usr/bin/dash", b"ENV"),
        (b"/usr/bin/perl5.36.0", b"PERL5OPT"),
        (b"/usr/bin/ruby3.1", b"RUBYOPT"),
        (b"/usr/lib/jvm/java-17/bin/java", b"JAVA_TOOL_OPTIONS"),
        (b"/usr/bin/lua5.4", b"LUA_INIT_5_4"),
        (b"/usr/bin/vim.basic", b"VIMINIT"),
    ],
)
def test_planted(path: bytes, variable: bytes) -> None:
    """A variable that makes the image run other code makes it unclean, among whatever else is set."""
    assert clean(path, ORDINARY)
    assert not clean(path, [*ORDINARY, variable])
    assert not clean(path, iter([variable]))
    assert not clean(path, [b"PATH=/bin", variable + b"=/x=y"])
    assert clean(path, [b"X=" + variable])


def test_interpreters_have_their_own() -> None:
    """What one interpreter reads says nothing about another program."""
    assert clean(b"/usr/bin/ssh", [b"PYTHONPATH", b"NODE_OPTIONS", b"BASH_ENV", b"PERL5OPT"])
    assert clean(b"/usr/bin/node", [b"PYTHONPATH"])
    assert clean(b"/usr/bin/pythonic", [b"PYTHONPATH"])


@strategies.bounded
@given(st.lists(st.binary(max_size=12)), st.lists(st.binary(max_size=12)))
def test_more_is_never_cleaner(some: list[bytes], more: list[bytes]) -> None:
    """Names are any bytes, and further variables never make a program clean."""
    for path in (b"/usr/bin/python3", b"/x", b"/\xff"):
        assert clean(path, some) or not clean(path, [*some, *more])
