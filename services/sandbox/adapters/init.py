"""The first process of a Docker sandbox, run as `python -I -S init.py ENV COMMAND...`; ENV is a JSON object.

It gives the command exactly that environment, where Docker would add its own variables, passes SIGTERM on,
which a command that is pid 1 would not even notice, and reaps what is left over. Its exit code is the
command's, 128+n for signal n, as under bubblewrap.
"""

import json
import os
import signal
import sys

DEFAULT_PATH = "/bin:/usr/bin"
NOT_STARTED = 127


def main() -> int:
    env, command = json.loads(sys.argv[1]), sys.argv[2:]
    os.environ["PATH"] = env.get("PATH", DEFAULT_PATH)  # posix_spawnp searches ours, not the command's
    restored = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
    try:
        pid = os.posix_spawnp(command[0], command, env, setsigdef=restored)
    except OSError as error:
        sys.stderr.write(f"init: {command[0]}: {error.strerror}\n")
        return NOT_STARTED
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
