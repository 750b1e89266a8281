"""The process between us and the server. Run as a script; imports nothing but the standard library.

    we ── stdin ──▶ supervisor ── child ──▶ postgres
    we ◀─ stdout ──

The supervisor holds the reading end of a pipe whose writing end only we hold. When we end, in whatever way (SIGKILL
included), the pipe closes, and the supervisor stops the server and removes its folder. It leads a session of its own,
so that Ctrl-C in a terminal reaches us and not the server under our feet.

Arguments: uid and gid to run the server as (or "-"), log file, folder to remove at the end (or "-"), the command.
To stdin: "keep" before closing it leaves the folder in place. From stdout: "exited N" when the server has ended.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

FAST_STOP_SECONDS = 20.0
"""For a fast shutdown, which writes a checkpoint; an immediate one, then SIGKILL, follow."""
IMMEDIATE_STOP_SECONDS = 5.0


def stop(server: "subprocess.Popen[bytes]") -> None:
    for how, patience in ((signal.SIGINT, FAST_STOP_SECONDS), (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.send_signal(how)
            server.wait(patience)
            return
    server.kill()


def main(uid: str, gid: str, log: str, temporary: str, *command: str) -> int:
    with open(log, "ab") as output:
        server = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if uid == "-" else int(uid),
            group=None if gid == "-" else int(gid),
            extra_groups=None if uid == "-" else (),
        )
    keep = threading.Event()

    def follow_owner() -> None:
        if b"keep" in sys.stdin.buffer.read():
            keep.set()
        stop(server)

    owner = threading.Thread(target=follow_owner, daemon=True)
    owner.start()
    code = server.wait()
    with contextlib.suppress(OSError):  # nobody may be left to read it
        os.write(sys.stdout.fileno(), f"exited {code}\n".encode())
    owner.join()
    if temporary != "-" and not keep.is_set():
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
