"""A lease on a folder of an object store, in place of a lock: held by one, renewed, taken over.

The lease is a row of objects LEASES/000001.json, 000002.json, ... of which the last one counts.
Whoever makes the next one has the lease: a store makes an object of a new name for one alone. The
owner writes its object again every few seconds with another number. Who waits compares no clocks of
two machines, which jump: it looks at the number, and when that has stood still for EXPIRES seconds
of its own steady clock, it makes the next object. An owner that comes back late finds that one, and
stops.
"""

import json
import os
import secrets
import socket
import threading
import time

from gpt1_jax import signals
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.messages import say
from gpt1_jax.storage.places import patiently, store_of

LEASES = ".leases"
# Seconds: between two renewals, without one until others may take it, between two looks.
RENEWED, EXPIRES, LOOK = 10.0, 60.0, 2.0


class Lease:
    """Keeps a second process, on whatever machine, from writing to the same folder."""

    def __init__(self, url: str):
        """Returns when the lease is held. UserError if another process has it and renews it."""
        self._url = url
        self._files, root = store_of(url)
        self._folder = f"{root.rstrip('/')}/{LEASES}"
        self._owner = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
        self._turn, self._lost = 0, False
        self._released = threading.Event()
        self._number = self._acquired()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def require(self) -> None:
        """Interrupted if another process has taken the lease over."""
        if self._lost:
            raise Interrupted(
                f"{self._url}: another process has taken it over, since this one had not been "
                "heard of; nothing more is written"
            )

    def release(self) -> None:
        """Lets others have it at once."""
        if self._released.is_set():
            return
        self._released.set()
        self._renewing.join(RENEWED)
        if not self._lost:
            patiently(lambda: self._write(released=True), self._url)

    def _acquired(self) -> int:
        seen: tuple[int, dict] | None = None
        since = time.monotonic()
        while True:
            number, state = found = patiently(self._newest, self._url)
            if state.get("owner") == self._owner:
                return number  # made, and not listed until now
            if number == 0 or state.get("released"):
                free = True
            elif found != seen:
                if seen is not None:
                    raise UserError(
                        f"another process is training in {self._url} ({state.get('owner')}); wait "
                        "for it or choose another --workdir"
                    )
                say(f"{self._url} was held by {state.get('owner')}; waiting for a sign of it")
                seen, since, free = found, time.monotonic(), False
            else:
                free = time.monotonic() - since > EXPIRES
            if free and self._made(number + 1):
                return number + 1
            if free:
                seen = None  # somebody else was faster
            signals.settle()
            time.sleep(LOOK)

    def _newest(self) -> tuple[int, dict]:
        """The number and the content of the last object; 0 if there is none."""
        self._files.invalidate_cache()
        numbers = [
            int(path.rpartition("/")[2].partition(".")[0])
            for path in self._files.find(self._folder)
        ]
        number = max(numbers, default=0)
        return number, json.loads(self._files.cat_file(self._path(number))) if number else {}

    def _made(self, number: int) -> bool:
        try:
            content = self._content()
            self._files.pipe_file(self._path(number), content, mode="create")
        except Exception:  # each store says in its own way that there is one
            return self._holds(number)
        return self._holds(number)

    def _holds(self, number: int) -> bool:
        found, state = patiently(self._newest, self._url)
        return found == number and state.get("owner") == self._owner

    def _renew(self) -> None:
        while not self._released.wait(RENEWED):
            try:
                if not self._holds(self._number):
                    self._lost = True
                    return
                self._write()
            except Exception as error:  # the next turn tries again
                say(f"{self._url}: the lease was not renewed ({' '.join(str(error).split())[:80]})")

    def _write(self, released: bool = False) -> None:
        self._files.pipe_file(self._path(self._number), self._content(released))

    def _content(self, released: bool = False) -> bytes:
        self._turn += 1
        state = {"owner": self._owner, "turn": self._turn, "released": released}
        return json.dumps(state).encode()

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.json"
