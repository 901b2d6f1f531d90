"""Path patterns: what they match, and what is refused instead of matching something unexpected."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import globs
from rampart_seccomp.policy.globs import ANY, Automaton, parse

ONE = 1


def matches(pattern: str, path: bytes) -> bool:
    return bool(Automaton([(parse(pattern).components, ONE)]).walk(path).mask & ONE)


def oracle(pattern: str) -> re.Pattern[bytes]:
    """Translate a pattern from the root straight to one expression, independently of the automaton."""
    expression = b""
    for name in pattern.lstrip("/").split("/"):
        if name == "**":
            expression += rb"(?:/[^/]+)*"
            continue
        raw = name.encode()
        raw = re.sub(rb"[.]", rb"\\.", raw)
        raw = raw.replace(b"[!", b"[^/").replace(b"?", b"[^/]").replace(b"*", b"[^/]*")
        expression += b"/" + raw
    return re.compile(b"(?:" + expression + rb")\Z", re.DOTALL)


class TestMatching:
    @pytest.mark.parametrize(
        ("pattern", "path", "expected"),
        [
            ("/a", b"/a", True),
            ("/a", b"/a/b", False),
            ("/a", b"/ab", False),
            ("/a/*", b"/a/b", True),
            ("/a/*", b"/a/.b", True),
            ("/a/*", b"/a", False),
            ("/a/*", b"/a/b/c", False),
            ("/a/**", b"/a", True),
            ("/a/**", b"/a/b/c", True),
            ("/a/**", b"/ab", False),
            ("/a/**/c", b"/a/c", True),
            ("/a/**/c", b"/a/b/b/c", True),
            ("/a/**/c", b"/a/b/cc", False),
            ("/a/**/b/**/c", b"/a/b/x/c", True),
            ("/a/**/b/**/c", b"/a/x/c", False),
            ("**/c", b"/c", True),
            ("**/c", b"/a/b/c", True),
            ("/**", b"/", True),
            ("/", b"/", True),
            ("/", b"/a", False),
            ("/a?c", b"/abc", True),
            ("/a?c", b"/ac", False),
            ("/a?c", b"/a\xffc", True),
            ("/a*b*c", b"/aXbYc", True),
            ("/a*b*c", b"/aXcYb", False),
            ("/a*a", b"/a", False),
            ("/a*a", b"/aa", True),
            ("/*.py", b"/x\n.py", True),
            ("/[ab]", b"/a", True),
            ("/[ab]", b"/c", False),
            ("/[!ab]", b"/c", True),
            ("/[^ab]", b"/a", False),
            ("/[a-c]", b"/b", True),
            ("/[]]", b"/]", True),
            ("/[!]]", b"/]", False),
            ("/[a-]", b"/-", True),
            ("/[*]", b"/*", True),
            ("/[*]", b"/x", False),
            ("/[[]", b"/[", True),
            (r"/[\]", b"/\\", True),
            ("/[{]a}", b"/{a}", True),
            ("/x.y", b"/x.y", True),
            ("/x.y", b"/xzy", False),
            ("/\udcff*", b"/\xffz", True),
            ("/é", "/é".encode(), True),
        ],
    )
    def test_examples(self, pattern: str, path: bytes, expected: bool) -> None:
        """`*`, `?` and classes stop at `/`; `**` crosses; a tree covers its root; bytes are bytes."""
        assert expected == matches(pattern, path)

    @strategies.bounded
    @given(strategies.patterns().filter(lambda text: text.startswith(("/", "**/"))), strategies.paths())
    def test_same_as_oracle(self, pattern: str, path: bytes) -> None:
        """The automaton agrees with a plain translation to one regular expression."""
        assert bool(oracle(pattern).match(path)) == matches(pattern, path)

    @strategies.bounded
    @given(strategies.any_names, strategies.any_names)
    def test_any_bytes(self, first: bytes, second: bytes) -> None:
        """Names of any bytes are matched, and by their own literal pattern alone."""
        path = b"/" + first + b"/" + second
        assert matches("/*/*", path)
        literal = re.sub(r"[*?\[{\\]", r"[\g<0>]", path.decode(errors="surrogateescape"))
        if not {first, second} & {b".", b".."}:
            assert matches(literal, path)
            assert not matches(literal, path + b"x")

    @strategies.bounded
    @given(st.lists(st.tuples(strategies.patterns(), st.integers(0, 3)), max_size=6), strategies.paths())
    def test_many_at_once(self, given_patterns: list[tuple[str, int]], path: bytes) -> None:
        """Many patterns in one automaton match what each of them matches alone."""
        bound = [(parse(text).components, 1 << slot) for text, slot in given_patterns]
        expected = 0
        for components, slot in bound:
            expected |= Automaton([(components, slot)]).walk(path).mask
        assert expected == Automaton(bound).walk(path).mask

    def test_forgetting_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bounded memory of the automaton may run over; answers stay the same."""
        monkeypatch.setattr(globs, "MAX_TRANSITIONS", 8)
        automaton = Automaton([(parse("/**/x/*").components, 1), (parse("/a/b*").components, 2)])
        for number in range(200):
            assert automaton.walk(b"/d%d/x/y" % number).mask == 1
            assert automaton.walk(b"/a/b%d" % number).mask == 2
            assert automaton.walk(b"/a/c%d" % number).mask == 0

    def test_no_explosion(self) -> None:
        """Patterns and names made to explode a backtracking matcher take no time."""
        started = time.perf_counter()
        assert not matches("/" + "*a" * 60 + "b", b"/" + b"a" * 255)
        assert not matches("/**" + "/a/**" * 40 + "/b", b"/a" * 2000)
        assert time.perf_counter() - started < 5

    def test_relative_paths_are_refused(self) -> None:
        """A path that is not absolute is nobody's real name."""
        with pytest.raises(ValueError, match="not an absolute path"):
            Automaton([]).walk(b"a")


class TestParsing:
    def test_anchors(self) -> None:
        """The anchor is told apart from what follows it; doubled `**` is one."""
        assert parse("~/x").anchor == "~"
        assert parse("~").components == ()
        assert parse("./x").anchor == "./"
        assert parse("@tmp").anchor == "@tmp"
        assert parse("**/x").anchor == "/"
        assert parse("/a/**/**/b").components == (b"a", ANY, b"b")

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("", "empty"),
            ("x", "starts nowhere"),
            ("*.py", "starts nowhere"),
            ("../x", "starts nowhere"),
            ("~other/x", "another user's home"),
            ("@home", "no named set"),
            ("@tmp/x", "no named set"),
            ("./", "ends with '/'"),
            ("/a/", "ends with '/'"),
            ("/a//b", "empty component"),
            ("/a/../b", "'..'"),
            ("/a/./b", "'.'"),
            ("/a**", "stands alone"),
            ("/***", "stands alone"),
            ("/[", "without ']'"),
            ("/[]", "without ']'"),
            ("/[a", "without ']'"),
            ("/[b-a]", "is empty"),
            ("/[é]", "longer character"),
            ("/{a,b}", "not expanded"),
            ("/\\*", "not an escape"),
            ("/a\0b", "NUL"),
            ("/" + "a" * 5000, "longer than"),
            ("/a" * 200, "components"),
        ],
    )
    def test_refused(self, pattern: str, expected: str) -> None:
        """What can match nothing, or means something else elsewhere, is an error that says so."""
        with pytest.raises(PolicyError) as caught:
            parse(pattern)
        assert expected in str(caught.value)
