"""Where the process of a worker begins (`python -m`): deaf to signals before anything else.

They reach a whole group of processes and are meant for the server, which tells its workers.
"""

import signal
import sys


def main() -> None:
    """Be the worker at the channel whose number is the one argument."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    import anyio  # noqa: PLC0415 - it takes longer than a user needs for the next Ctrl-C

    from turnlane.runtime.worker import serve  # noqa: PLC0415

    anyio.run(serve, int(sys.argv[1]))


if __name__ == "__main__":
    main()
