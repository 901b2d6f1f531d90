"""``python -m rampart_seccomp``: the command line."""

from rampart_seccomp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
