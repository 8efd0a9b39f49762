"""A rank that dies or hangs ends the others soon, and they say which rank it was and why.

Each rank keeps one TCP connection to the first. The kernel closes it when its process dies, in
whatever way, and answers for a machine that lives; so a process that is merely busy, even one that
never lets Python's threads run, is not taken for dead. Hanging is another thing: then no rank gets
on, and the one that lags behind the others is where it began.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_zoo.errors import Stopped

SECONDS_BETWEEN_WORDS = 1.0
# A machine without power sends no last word: after so many seconds its silence counts as one.
SECONDS_OF_SILENCE = 6
# So long may a rank take to end by itself after an error elsewhere, and to save a checkpoint.
SECONDS_TO_END = 5.0
# Python code of these packages is no place that a person could look at.
LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("torch", "lightning"))


@dataclass
class Place:
    """Where a rank is.

    Attributes:
        rank: Its number.
        process: Its process id.
        host: Name of its machine.
        moves: Counts up whenever it gets on.
        position: Epoch, batch and part of the step: who is behind has the smaller one.
        step: Optimizer steps made.
        where: The line of code that it executes.
        done: Whether it has come to its end.
    """

    rank: int
    process: int
    host: str
    moves: int = 0
    position: list[int] = field(default_factory=lambda: [0, 0, 0])
    step: int = 0
    where: str = ""
    done: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.process} on {self.host})"


class RankWatch(Callback):
    """Watches over the ranks of a run; with one rank it does nothing.

    Args:
        timeout: Seconds without any progress on any rank after which the run ends.
        on_end: Called on the first rank with the sentence that ends the run, before the process
            leaves with status 1.
    """

    def __init__(self, timeout: float, *, on_end: Callable[[str], None] | None = None) -> None:
        self.timeout, self.on_end = timeout, on_end
        self.place = Place(0, os.getpid(), platform.node())
        self._link: _Hub | _Client | None = None
        self.told = 0

    # -- what the trainer tells -----------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the ranks; the process group stands already."""
        if trainer.world_size == 1 or self._link is not None:
            return
        self.place.rank = trainer.global_rank
        alone = trainer.num_nodes == 1
        host = "127.0.0.1" if alone else os.environ.get("MASTER_ADDR", "127.0.0.1")
        server, known = None, None
        if trainer.is_global_zero:
            server = socket.create_server((host if alone else "", 0), backlog=trainer.world_size)
            known = server.getsockname()[1], secrets.token_hex(16), str(self.place)
        port, token, first = trainer.strategy.broadcast(known or (0, "", ""))
        if server is not None:
            self._link = _Hub(self, server, token, trainer.world_size)
        else:
            self._link = _Client(self, (host, port), token, first)
        self._link.start()

    def _at(self, trainer: Trainer, part: int) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.place.position = [trainer.current_epoch, batch, part]
        self.place.step = trainer.global_step
        self.place.moves += 1

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """The batch is there."""
        self._at(trainer, 1)

    def on_before_backward(self, trainer: Trainer, *args: Any) -> None:
        """The loss is there."""
        self._at(trainer, 2)

    def on_after_backward(self, trainer: Trainer, *args: Any) -> None:
        """The gradients are there, those of the other ranks too."""
        self._at(trainer, 3)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """The batch is done."""
        self._at(trainer, 4)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Ranks may have another number of these batches."""
        self._at(trainer, 5)

    def on_validation_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        """This rank has counted its samples."""
        self._at(trainer, 6)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        """All ranks have."""
        self._at(trainer, 7)

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        """The epoch is done."""
        self._at(trainer, 8)

    def on_test_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """As in validation."""
        self._at(trainer, 5)

    def on_test_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        """As in validation."""
        self._at(trainer, 6)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tell the others why this rank ends, unless it only follows another one."""
        if self._link is None:
            return
        if isinstance(exception, (Stopped, KeyboardInterrupt)):
            self._link.leave()
            return
        if _is_of_another_rank(exception):
            time.sleep(SECONDS_TO_END)  # the word on the rank that it began with is on its way
        self._link.fail(f"{type(exception).__name__}: {exception}".splitlines()[0])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say goodbye, so that the closed connection means no harm."""
        if self._link is not None:
            self._link.leave()
            self._link = None

    def tell_signal(self, number: int) -> None:
        """Give a signal on to the other ranks."""
        if self._link is not None and not self.told:
            self.told = number
            self._link.tell({"signal": number})

    # -- what the connection tells --------------------------------------------------------------

    def take_signal(self, number: int) -> None:
        """Let this process have the signal that another rank had."""
        if not self.told:
            self.told = number
            os.kill(os.getpid(), number)

    def end(self, text: str, *, speak: bool) -> None:
        """End this process, whatever its main thread waits for."""
        if speak:
            print(f"error: {text}", file=sys.stderr, flush=True)  # noqa: T201
        if self.place.rank == 0 and self.on_end is not None:
            with contextlib.suppress(Exception):
                self.on_end(text)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    def report(self) -> dict[str, Any]:
        """Return where this rank is, as plain data."""
        self.place.where = _where()
        return asdict(self.place)


class _Link(threading.Thread):
    """One rank's end of the connections; reads and writes lines of JSON."""

    def __init__(self, watch: RankWatch) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.watch = watch
        self.left = threading.Event()
        self.selector = selectors.DefaultSelector()
        self.rests: dict[socket.socket, bytes] = {}
        self.writing = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_forget, weakref.ref(self)))

    def read(self, connection: socket.socket) -> list[dict[str, Any]] | None:
        """Return the messages that came; None where the other side is gone."""
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, rest = (self.rests.get(connection, b"") + data).split(b"\n")
        if len(rest) > 1 << 16:  # no message of ours is so long
            return None
        self.rests[connection] = rest
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    found.append(message)
        return found

    def write(self, connection: socket.socket, message: dict[str, Any]) -> bool:
        """Send one message, if it can be; a side that is gone will be noticed by reading."""
        with self.writing, contextlib.suppress(OSError):
            connection.sendall(json.dumps(message).encode() + b"\n")
            return True
        return False

    def step(self) -> None:
        """Wait a little, read what came, say what is due."""
        raise NotImplementedError

    def run(self) -> None:
        """Go on until there is no one left to talk to."""
        while self.selector.get_map():
            self.step()


def _forget(link: weakref.ref[_Link]) -> None:
    """Close a rank's connections in a loader's worker.

    A worker outlives its rank for some seconds, and with the connection that would seem to live on.
    """
    if (one := link()) is not None:
        for key in list(one.selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()


class _Client(_Link):
    """The connection of a rank to the first one."""

    def __init__(self, watch: RankWatch, address: tuple[str, int], token: str, first: str) -> None:
        super().__init__(watch)
        self.first = first
        self.connection = _keep_alive(socket.create_connection(address, timeout=60))
        self.selector.register(self.connection, selectors.EVENT_READ)
        self.write(self.connection, {"token": token, **watch.report()})
        self.spoke = self.heard = self.moved = time.monotonic()
        self.moves = -1
        self.first_left = self.failing = False

    def tell(self, message: dict[str, Any]) -> None:
        """Send a word to the first rank."""
        self.write(self.connection, message)

    def leave(self) -> None:
        """Say goodbye, and read on: bytes that no one reads would take back what was said."""
        self.tell({"bye": True})
        self.left.set()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def fail(self, reason: str) -> None:
        """Say why this rank ends, and let the first one end before this one does.

        Lightning kills it at once when a process that it started ends with an error.
        """
        self.failing = True
        self.tell({"failed": reason})
        self.left.wait(SECONDS_TO_END)

    def step(self) -> None:
        for _ in self.selector.select(SECONDS_BETWEEN_WORDS / 2):
            messages = self.read(self.connection)
            if messages is None:
                self._lost()
                return
            for message in messages:
                self._take(message)
        if self.left.is_set():
            return
        now = time.monotonic()
        if now - self.spoke >= SECONDS_BETWEEN_WORDS:
            self.spoke = now
            self.tell(self.watch.report())
        if self.watch.place.moves != self.moves:
            self.moves, self.moved = self.watch.place.moves, now
        if min(now - self.heard, now - self.moved) > self.watch.timeout + 2:
            text = f"{self.first} has not answered for {self.watch.timeout:g} s: it hangs"
            self.watch.end(text, speak=self.watch.place.rank == 1)

    def _take(self, message: dict[str, Any]) -> None:
        self.heard = time.monotonic()
        if "signal" in message:
            self.watch.take_signal(int(message["signal"]))
        elif "end" in message and not self.left.is_set():
            self.left.wait(float(message["grace"]))
            if not self.left.is_set():
                self.watch.end(str(message["end"]), speak=False)  # the first rank has said it
        elif "bye" in message:
            self.first_left = True
            self.tell({"heard": True})

    def _lost(self) -> None:
        """Deal with a closed connection."""
        self.selector.unregister(self.connection)
        self.connection.close()
        if self.failing:
            self.left.set()
            return
        if self.first_left or self.left.is_set():
            # it ended as it should, and this rank has so long to do the same
            if not self.left.wait(SECONDS_TO_END) and self.watch.told:
                os._exit(0)  # stopped by a signal while it waited for the others
            self.left.set()
            return
        text = f"{self.first} ended without a word: killed, out of memory, or its machine is gone"
        self.watch.end(text, speak=self.watch.place.rank == 1)


class _Hub(_Link):
    """What the first rank knows of the others."""

    def __init__(self, watch: RankWatch, server: socket.socket, token: str, size: int) -> None:
        super().__init__(watch)
        self.server, self.token, self.size = server, token, size
        server.setblocking(False)
        self.selector.register(server, selectors.EVENT_READ)
        self.places: dict[socket.socket, Place] = {}
        self.spoke = self.moved = time.monotonic()
        self.moves: dict[int, int] = {}
        self.leaving = False
        self.heard: set[socket.socket] = set()

    def tell(self, message: dict[str, Any], but: socket.socket | None = None) -> None:
        """Send a word to all others."""
        for connection, place in list(self.places.items()):
            if connection is not but and not place.done:
                self.write(connection, message)

    def leave(self) -> None:
        """Say goodbye."""
        self._last_word({"bye": True})

    def fail(self, reason: str) -> None:
        """Say why the first rank ends."""
        self._last_word({"end": f"rank 0 failed: {reason}", "grace": 0.0})

    def _last_word(self, message: dict[str, Any]) -> None:
        """Send a word and wait until it is heard: a closed connection may swallow what it holds."""
        self.leaving = True
        waiting = [c for c in list(self.places) if self.write(c, message)]
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and not self.heard.issuperset(waiting):
            time.sleep(0.01)
        self.left.set()
        self.selector.unregister(self.server)
        self.server.close()

    def step(self) -> None:
        for key, _ in self.selector.select(SECONDS_BETWEEN_WORDS / 2):
            if key.fileobj is self.server:
                self._accept()
            elif isinstance(key.fileobj, socket.socket):
                self._hear(key.fileobj)
        now = time.monotonic()
        if now - self.spoke >= SECONDS_BETWEEN_WORDS:
            self.spoke = now
            self.tell({"alive": True})
        if not self.leaving:
            self._judge(now)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self.server.accept()
            self.selector.register(_keep_alive(connection), selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> None:
        messages = self.read(connection)
        place = self.places.get(connection)
        for message in messages or ():
            if place is None:
                if not secrets.compare_digest(str(message.pop("token", "")), self.token):
                    messages = None
                    break
                place = self.places[connection] = Place(**message)
            elif "failed" in message:
                place.done = True
                self._end(f"{place} failed: {message['failed']}", grace=1.0)
            elif "signal" in message:
                self.tell(message, but=connection)
                self.watch.take_signal(int(message["signal"]))
            elif "bye" in message:
                place.done = True
            elif "heard" in message:
                self.heard.add(connection)
            else:
                self.places[connection] = place = Place(**message)
        if messages is None:
            self.selector.unregister(connection)
            connection.close()
            self.heard.add(connection)
            if place is not None:
                del self.places[connection]
                if not place.done and not self.leaving:
                    self._end(
                        f"{place} ended without a word after step {place.step}: killed, "
                        "out of memory, or its machine is gone",
                        grace=0.0,
                    )

    def _judge(self, now: float) -> None:
        """End the run where no rank has got on for too long."""
        mine = Place(**self.watch.report())
        places = [mine, *self.places.values()]
        moves = {place.rank: place.moves for place in places}
        if moves != self.moves or len(places) < self.size:
            self.moves, self.moved = moves, now
        if now - self.moved <= self.watch.timeout:
            return
        behind = min(places, key=lambda place: place.position)
        abreast = [place for place in places if place.position == behind.position]
        if len(abreast) == len(places):
            where = "; ".join(f"rank {place.rank} at {place.where}" for place in places[:4])
            text = f"no rank has got on for {self.watch.timeout:g} s: {where}"
        else:
            text = (
                f"{behind} has not got on for {self.watch.timeout:g} s and the others wait for it: "
                f"it is at {behind.where}, after step {behind.step}"
            )
        more = "; if so long a pause is right, raise --run.rank_timeout"
        self._end(text + more, grace=0.0)

    def _end(self, text: str, *, grace: float) -> None:
        """End all ranks; those with an error of their own may take ``grace`` seconds to tell it."""
        self.tell({"end": text, "grace": grace})
        if self.left.wait(grace):
            return
        self.watch.end(text, speak=True)


def _keep_alive(connection: socket.socket) -> socket.socket:
    """Let the kernel notice a machine that is gone."""
    connection.settimeout(5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": SECONDS_OF_SILENCE // 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _where() -> str:
    """Return file, line and function that the main thread is in, libraries left out."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    found = frame
    while found is not None and (
        found.f_code.co_filename == __file__
        or any(name in found.f_code.co_filename for name in LIBRARIES)
    ):
        found = found.f_back
    found = found or frame
    if found is None:
        return "an unknown place"
    name = os.path.basename(found.f_code.co_filename)
    return f"{name}:{found.f_lineno} in {found.f_code.co_name}"


def _is_of_another_rank(error: BaseException) -> bool:
    """Whether an error says only that another rank is gone."""
    words = ("closed by peer", "reset by peer", "gloo", "nccl", "broken pipe", "timed out")
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
