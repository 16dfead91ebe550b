"""What faults.py starts: a verb to which something happens, in a fork of a process that has
imported the libraries.

    python tests/faulty.py FD

FD is a socket on which requests come. Each is answered by a fork, which goes on below as if it had
been started with `python tests/faulty.py AT DO SETTINGS WORDS...`; so do the processes that a verb
spawns, which import this file with those arguments. Nothing of JAX runs before the fork, so there
are no threads of it, and nothing of the package is imported, so that a moment of a function is met
wherever the function is called.
"""

import importlib
import json
import os
import pathlib
import signal
import socket
import struct
import sys
import warnings

LIBRARIES = (
    "filelock",
    "flax.linen",
    "jax.experimental.pallas",
    "ml_collections",
    "optax",
    "orbax.checkpoint",
    "packaging.requirements",
    "pydantic.dataclasses",
    "pydantic.type_adapter",
    "sentencepiece",
    "tensorboardX",
    "tqdm",
)


def serve(descriptor: int) -> None:
    """Returns in the fork of each request. Ends the process when nobody is left to send one."""
    for name in LIBRARIES:
        importlib.import_module(name)
    requests = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 4, 3)
        if not message:
            _reap(0)
            os._exit(0)
        content = b""
        while len(content) < struct.unpack("i", message)[0]:
            content += requests.recv(2**16)
        if _fork() == 0:
            requests.close()
            return _become(json.loads(content), *descriptors)
        for one in descriptors:
            os.close(one)
        _reap(os.WNOHANG)


def _reap(how: int) -> None:
    try:
        while os.waitpid(-1, how) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which are those of BLAS, who expects it
        return os.fork()


def _become(request: dict, output: int, errors: int, reply: int) -> None:
    """Forks once more: one tells the number of the other, awaits it, and tells how it ended."""
    if process := _fork():
        os.write(reply, struct.pack("i", process))
        _, status = os.waitpid(process, 0)
        os.write(reply, struct.pack("i", os.waitstatus_to_exitcode(status)))
        os._exit(0)
    os.close(reply)
    # As from a terminal, also where the tests are started by nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if request["session"]:
        os.setsid()
    for one, standard in ((output, 1), (errors, 2)):
        os.dup2(one, standard)
        os.close(one)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    serve(int(sys.argv[1]))

at, do, settings, words = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
exec(settings)
number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


def strike():
    if do in number:
        os.kill(os.getpid(), number[do])
    else:
        exec(do)


when, _, name = at.rpartition(" ")
name, _, wanted = name.partition("%")
seen = []


def noted(where):
    if where == (when or "after"):
        seen.append(where)
        if len(seen) == int(wanted or 1):
            strike()


def around(function):
    def wrapped(*arguments, **named):
        noted("before")
        found = function(*arguments, **named)
        noted("after")
        return found

    return wrapped


replace = os.replace
if ":" in name:
    module, _, path = name.partition(":")
    owner = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, around(getattr(owner, last)))
elif name:
    noting = around(replace)
    os.replace = lambda one, two: (noting if pathlib.Path(two).match(name) else replace)(one, two)

if __name__ == "__main__":
    from gpt1_jax.__main__ import main

    sys.exit(main(words))
