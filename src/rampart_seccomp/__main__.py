"""``python -m rampart_seccomp``: the command line."""

from rampart_seccomp.cli import entry

if __name__ == "__main__":
    entry()
