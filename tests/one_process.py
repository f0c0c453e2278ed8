"""Perform shell commands and tasks of a pool in one process, so that torch is imported once.

python one_process.py SOCKET             # performs commands until it is killed
python -S one_process.py SOCKET WORD...  # one command, with this call's folder and streams
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess


def tasks_here(patch) -> None:
    """Let the local pool perform its tasks in this process, one after the other.

    Tasks are pickled, as for another process. The garbage collection between two tasks is switched
    off, because it would traverse all modules that this process has imported.
    """
    import gc
    import pickle
    from concurrent.futures import Future

    from causalclip.engine.draws import generators_kept
    from causalclip.runs.executor import LocalPool

    def submit(self, function, *arguments):
        future = Future()
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        with generators_kept():
            future.set_result(function(*arguments))
        return future

    patch.setattr(LocalPool, "submit", submit)
    patch.setattr(LocalPool, "places", lambda self: 1)
    patch.setattr(gc, "collect", lambda: 0)


def clips_kept(patch) -> None:
    """Load the CLIP and the digest of each file once; trainers get a copy of the model."""
    import copy
    from pathlib import Path
    from weakref import WeakKeyDictionary

    from causalclip.clip.backbone import BUNDLED_CLIPS
    from causalclip.engine import frozen_clip

    load, digest_of = frozen_clip.load_clip, frozen_clip.weights_digest
    kept, digests = {}, WeakKeyDictionary()

    def copied(name, *, device="cpu", **how):
        path = Path(BUNDLED_CLIPS.get(name, name))
        if not path.is_file():
            return load(name, device=device, **how)
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size, *sorted(how.items()))
        if key not in kept:
            model = load(name, **how)
            kept[key] = model, digest_of(model)
        model = copy.deepcopy(kept[key][0]).to(device)
        digests[model] = kept[key][1]
        return model

    patch.setattr(frozen_clip, "load_clip", copied)
    patch.setattr(frozen_clip, "weights_digest", lambda m: digests.get(m) or digest_of(m))


def fork(function, *arguments) -> BaseProcess:
    """Begin a function in a fork of this process; its `exitcode` is 1 after an error."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(function, arguments))
    process.start()
    return process


def _alone(function, arguments) -> None:
    import torch

    torch.set_num_threads(1)  # a fork does not have OpenMP's other threads
    function(*arguments)


def ask(place: str, words: list[str]) -> int:
    """Send a command to the server; return its exit status."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        request = "\0".join([os.getcwd(), *words]).encode()
        socket.send_fds(client, [len(request).to_bytes(4, "big")], [0, 1, 2])
        client.sendall(request)
        return client.recv(1)[0]


def serve(place: str) -> None:
    """Perform each command in a fork, one after the other."""
    import optuna  # noqa: F401 (this and the next imports: needed by the commands)
    import pytest
    import sklearn.calibration  # noqa: F401
    import torch._dynamo
    import torch.utils.flop_counter  # noqa: F401
    import torchmetrics  # noqa: F401

    import causalclip.checks.trainer
    import causalclip.page.command
    import causalclip.plots.study_plots
    import causalclip.predict.explain
    import causalclip.report.summarize
    import causalclip.runs.tune  # noqa: F401
    from causalclip import plugin

    plugin.register_all()
    clips_kept(pytest.MonkeyPatch())
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        while True:
            client, _ = server.accept()
            with client:
                size, streams, *_ = socket.recv_fds(client, 4, 3)
                request = client.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
                process = fork(perform_with, streams, *request.decode().split("\0"))
                for stream in streams:
                    os.close(stream)
                process.join()
                client.sendall(bytes([(process.exitcode or 0) & 255]))


def perform_with(streams: list[int], *request: str) -> None:
    """Run a command with these standard streams and exit with its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.exit(perform(*request))


def perform(folder: str, program: str, *words: str) -> int:
    """Run `causalclip WORDS` or `python CODE` in a folder; return its exit status."""
    import pytest

    from causalclip import cli

    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    tasks_here(pytest.MonkeyPatch())
    if program == "causalclip":
        return cli.main(words)
    exec(words[0], {"__name__": "__main__"})
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
