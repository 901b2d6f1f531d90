"""What starts the measured commands: one process each, so that ways to run a command can take turns.

`bare` is subprocess, `rampart` a warm broker, `peer` sandlock, with the interpreter that it is installed for.
Each reads requests and writes replies as lines of JSON (`protocol`).
"""
