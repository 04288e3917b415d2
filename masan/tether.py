"""Run a command that the kernel ends when its parent dies: `tether.py SIGNAL PARENT_PID COMMAND...`.

A supervisor that is killed outright cannot tidy up, so each of its children asks the kernel for a signal on
the parent's death (Linux `PR_SET_PDEATHSIG`; it survives exec) before it becomes the command. Elsewhere the
command just runs, and the next start ends what was left behind. Standard library only: it runs with `-I -S`.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command. Exits with 1 if the parent has died already."""
    death_signal, parent_pid, *command = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal)) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != int(parent_pid):
            sys.exit("the parent died before the command could start")
    os.execv(command[0], command)  # noqa: S606 - becoming a given command is the purpose


if __name__ == "__main__":
    main()
