"""Building the filter, and the cache that is believed only as far as it deserves."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rampart_seccomp.cache import cache_directories, sealed
from rampart_seccomp.errors import FilterError, LibraryMissing
from rampart_seccomp.kernel import filter as filters
from rampart_seccomp.kernel import libseccomp
from rampart_seccomp.kernel.bpf import decode
from rampart_seccomp.kernel.traps import STRICTEST, Traps

SOURCE = Path(filters.__file__).parents[2]
OWN = b"/h/.cache/rampart-seccomp"


class Builds:
    """Stands for `build_filter`, and counts."""

    def __init__(self, program: bytes) -> None:
        self.program = program
        self.count = 0

    def __call__(self, traps: Traps = STRICTEST) -> bytes:
        self.count += 1
        return self.program


@pytest.fixture(scope="module")
def program() -> bytes:
    return filters.build_filter()


@pytest.fixture
def builds(program: bytes, monkeypatch: pytest.MonkeyPatch) -> Builds:
    made = Builds(program)
    monkeypatch.setattr(filters, "build_filter", made)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the cache will be in; it does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rampart-seccomp"


def cached(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def test_the_filter_is_of_reasonable_size(program: bytes) -> None:
    """A filter over the whole table stays far below the kernel's 4096 instructions."""
    assert 400 < len(decode(program)) < 800


def test_building_is_deterministic(program: bytes) -> None:
    """The same table gives the same program, so that its fingerprint means something."""
    assert filters.build_filter() == program


def test_the_second_load_comes_from_the_cache(cache: Path, builds: Builds) -> None:
    """A filter is built once; the cached file and its directory are closed to others."""
    first = filters.load_filter()
    assert builds.count == 1
    assert filters.load_filter() == first
    assert builds.count == 1
    assert first.program == builds.program
    assert first.instructions == len(builds.program) // 8
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(cached(cache).stat().st_mode) == 0o600


def spoil_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def spoil_length(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def spoil_everything(file: Path) -> None:
    file.write_bytes(b"")


def spoil_mode(file: Path) -> None:
    file.chmod(0o620)


def spoil_directory_mode(file: Path) -> None:
    file.parent.chmod(0o770)


def spoil_by_symlink(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def spoil_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def spoil_directory_by_symlink(file: Path) -> None:
    directory = file.parent
    directory.rename(directory.with_name("moved"))
    directory.symlink_to(directory.with_name("moved"))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_byte,
        spoil_length,
        spoil_everything,
        spoil_mode,
        spoil_directory_mode,
        spoil_by_symlink,
        spoil_by_fifo,
        spoil_directory_by_symlink,
    ],
)
def test_what_cannot_be_trusted_is_built_again(spoil: object, cache: Path, builds: Builds) -> None:
    """A corrupt file, open modes, a link in place of file or directory: built anew, with the right result."""
    filters.load_filter()
    assert callable(spoil)
    spoil(cached(cache))
    assert filters.load_filter().program == builds.program
    assert builds.count == 2


def test_a_wrong_filter_with_the_right_checksum_is_built_again(cache: Path, builds: Builds) -> None:
    """Whoever could write into the cache cannot have another filter used: it is proven again at each load."""
    right = filters.load_filter()
    everything_allowed = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    cached(cache).write_bytes(sealed(filters._key(STRICTEST), everything_allowed))
    assert filters.load_filter() == right
    cached(cache).write_bytes(sealed(filters._key(STRICTEST), filters.build_filter(Traps(scoped=False))))
    assert filters.load_filter() == right
    assert builds.count == 3


def test_each_kind_of_filter_has_its_own_file(cache: Path) -> None:
    """Filters that hold different calls are kept apart, and none is taken for another."""
    kinds = [Traps(), Traps(scoped=False), Traps(restricted=()), Traps(features={"sysv-ipc"})]
    kinds += [Traps(restricted=(), opens=False)]
    made = [filters.load_filter(traps) for traps in kinds]
    assert len({each.fingerprint for each in made}) == len(kinds)
    assert [filters.load_filter(traps) for traps in kinds] == made
    assert len(list(cache.iterdir())) == len(kinds)


def test_files_of_old_versions_go_after_a_month(cache: Path, builds: Builds) -> None:
    """A new filter's coming removes what nobody has written for a month, and nothing younger or foreign."""
    cache.mkdir(mode=0o700, parents=True)
    for name, days in (("old.bpf", 31), (".old.bpf.part", 31), ("young.bpf", 29), ("foreign", 31)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - days * 86400,) * 2)
    filters.load_filter()
    assert {file.name for file in cache.iterdir()} >= {"young.bpf", "foreign"}
    assert not {file.name for file in cache.iterdir()} & {"old.bpf", ".old.bpf.part"}
    assert len(list(cache.iterdir())) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize("whose", ["file", "directory"])
def test_what_belongs_to_somebody_else_is_built_again(whose: str, cache: Path, builds: Builds) -> None:
    """A cache planted by another user is not believed, however well formed."""
    filters.load_filter()
    os.chown(cached(cache) if whose == "file" else cache, 65534, 65534)
    filters.load_filter()
    assert builds.count == 2


def test_another_table_or_library_does_not_find_the_file(
    cache: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key covers the library's version: after an upgrade the filter is built by the new one."""
    filters.load_filter()
    monkeypatch.setattr(libseccomp, "version", lambda: "9.9.9")
    filters.load_filter()
    assert builds.count == 2
    assert len(list(cache.iterdir())) == 2


def test_a_file_under_another_key_is_not_believed(
    cache: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum covers the key, so a file cannot be passed off as that of another table."""
    filters.load_filter()
    old = cached(cache)
    content = old.read_bytes()
    monkeypatch.setattr(libseccomp, "version", lambda: "9.9.9")
    filters.load_filter()
    (new,) = [file for file in cache.iterdir() if file != old]
    new.write_bytes(content)
    filters.load_filter()
    assert builds.count == 3


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place for it the filter is built every time."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert filters.load_filter().program == filters.load_filter().program == builds.program
    assert builds.count == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, [b"/c/rampart-seccomp", OWN]),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, [OWN]),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, [OWN]),
        ({"XDG_CACHE_HOME": "/h/.cache", "HOME": "/h"}, [OWN]),
    ],
)
def test_where_the_cache_is(
    environment: dict[str, str], expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is that of the XDG specification, where relative ones do not count; then that in the home."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_directories() == expected


def test_a_cached_start_needs_no_pyseccomp(cache: Path, builds: Builds) -> None:
    """With a warm cache the filter is there without the import that runs ldconfig."""
    code = (
        "import sys; from rampart_seccomp.kernel.filter import load_filter;"
        "print(load_filter().fingerprint, 'pyseccomp' in sys.modules)"
    )

    def start() -> list[str]:
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    cold = start()
    warm = start()
    assert cold[1] == "True"
    assert warm == [cold[0], "False"]


def test_without_libseccomp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is a typed error with the packages of the distributions."""
    monkeypatch.setattr(libseccomp.ctypes, "CDLL", missing)
    with pytest.raises(LibraryMissing, match="apt install libseccomp2") as caught:
        libseccomp._library.__wrapped__()
    assert caught.value.name == "libseccomp"
    assert isinstance(caught.value, ImportError)


def missing(*_: object, **__: object) -> object:
    raise OSError("libseccomp.so.2: cannot open shared object file")


def test_a_refused_rule_names_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libseccomp does not take is an error about that call, not a filter without it."""

    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(filters._pyseccomp().SyscallFilter, "add_rule_exactly", refuse)
    with pytest.raises(FilterError, match="libseccomp refuses a rule") as caught:
        filters.build_filter()
    assert caught.value.syscall is not None
