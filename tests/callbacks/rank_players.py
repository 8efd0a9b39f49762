"""Plays two or three ranks that die, hang, fail or leave; prints how each ended, as JSON.

One process imports the package and forks the ranks of every scene: imports are what takes long.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lightning_zoo.callbacks.ranks import RankWatch, _Client, _Hub

TIMEOUT = 2.0  # seconds without progress
TOKEN = "secret"


def work(watch: RankWatch, seconds: float, *, position: int = 1) -> None:
    """Get on with it, twenty times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.place.moves += 1
        watch.place.position = [0, watch.place.moves, position]
        time.sleep(0.05)


def wait_for_others(watch: RankWatch) -> None:
    """Stand still where all ranks meet."""
    watch.place.position = [0, 10**6, 3]
    watch.place.moves += 1
    time.sleep(60)


def get_stuck(watch: RankWatch) -> None:
    """Stand still on the way there."""
    time.sleep(60)


def die(watch: RankWatch) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_a_worker(watch: RankWatch) -> None:
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(12)
        os._exit(0)
    die(watch)


def stop(watch: RankWatch) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fail(watch: RankWatch) -> None:
    assert watch._link is not None
    watch._link.fail("KeyError: 'mouse'")
    os._exit(2)


def leave(watch: RankWatch) -> None:
    assert watch._link is not None
    watch._link.leave()
    time.sleep(0.2)
    os._exit(0)


def take_a_signal(watch: RankWatch) -> None:
    watch.told = 0
    watch.tell_signal(signal.SIGUSR1)
    time.sleep(1)
    leave(watch)


def await_a_signal(watch: RankWatch) -> None:
    time.sleep(5)  # the handler ends it


def strangers_knock(watch: RankWatch) -> None:
    port = int(os.environ["PORT"])
    for word in (b"GET / HTTP/1.1\r\n\r\n", b'{"token": "wrong"}\n', b"\xff" * 200_000, b""):
        address = "127.0.0.1", port
        with socket.create_connection(address) as connection, contextlib.suppress(OSError):
            connection.sendall(word)
    work(watch, 2.5)
    leave(watch)


def busy(watch: RankWatch) -> None:
    work(watch, 3.5)
    leave(watch)


Player = Callable[[RankWatch], None]
SCENES: dict[str, list[Player]] = {
    "a rank dies": [wait_for_others, die, wait_for_others],
    "a rank dies before its worker": [wait_for_others, die_before_a_worker],
    "the first dies before its worker": [die_before_a_worker, wait_for_others],
    "the first dies": [die, wait_for_others, wait_for_others],
    "a rank is stuck": [wait_for_others, get_stuck, wait_for_others],
    "a rank is stopped": [wait_for_others, stop, wait_for_others],
    "the first is stuck": [get_stuck, wait_for_others],
    "the first is stopped": [stop, wait_for_others],
    "all are stuck": [wait_for_others, wait_for_others],
    "a rank fails": [wait_for_others, fail, wait_for_others],
    "the first fails": [fail, wait_for_others],
    "all leave": [leave, leave, busy],
    "a signal at a rank": [await_a_signal, take_a_signal, await_a_signal],
    "a signal at the first": [take_a_signal, await_a_signal],
    "strangers knock": [busy, strangers_knock],
}


def play(rank: int, ranks: int, server: socket.socket, player: Player, folder: Path) -> None:
    """Be one rank; never return."""
    out = (folder / f"{rank}.txt").open("w")
    os.dup2(out.fileno(), 2)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(77))
    watch = RankWatch(TIMEOUT, on_end=lambda text: (folder / "noted.txt").write_text(text) and None)
    watch.place.rank, watch.place.process = rank, os.getpid()
    port = server.getsockname()[1]
    os.environ["PORT"] = str(port)
    if rank == 0:
        watch._link = _Hub(watch, server, TOKEN, ranks)
    else:
        server.close()
        watch._link = _Client(watch, ("127.0.0.1", port), TOKEN, "rank 0 (process 1 on first)")
    watch._link.start()
    (folder / f"{rank}.there").touch()
    while len(list(folder.glob("*.there"))) < ranks:
        work(watch, 0.05)
    work(watch, 0.3)
    (folder / f"{rank}.began").write_text(str(time.time()))
    while len(list(folder.glob("*.began"))) < ranks:
        work(watch, 0.05)
    player(watch)
    os._exit(0)


def scene(players: list[Player]) -> dict[str, object]:
    """Play one scene to its end, or for 15 s."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = socket.create_server(("127.0.0.1", 0))
        pids: list[int] = []
        for rank, player in enumerate(players):
            pid = os.fork()
            if pid == 0:
                play(rank, len(players), server, player, folder)
            pids.append(pid)
        server.close()
        ended: dict[int, tuple[int, float]] = {}
        deadline = time.monotonic() + 15
        while len(ended) < len(pids) and time.monotonic() < deadline:
            for pid in set(pids) - set(ended):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    ended[pid] = os.waitstatus_to_exitcode(status), time.time()
            time.sleep(0.02)
        for pid in set(pids) - set(ended):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        began = [float((folder / f"{r}.began").read_text()) for r in range(len(pids))]
        noted = folder / "noted.txt"
        return {
            "status": [ended[pid][0] if pid in ended else None for pid in pids],
            "seconds": [ended[pid][1] - max(began) if pid in ended else None for pid in pids],
            "said": [(folder / f"{r}.txt").read_text() for r in range(len(pids))],
            "noted": noted.read_text() if noted.is_file() else "",
            "pids": pids,
        }


if __name__ == "__main__":
    print(json.dumps({name: scene(players) for name, players in SCENES.items()}), flush=True)
    sys.exit(0)
