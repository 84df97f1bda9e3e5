"""One training on several GPUs of a machine: a process for each, which share out the micro-batches of every update.

An update stays what it is in one process, up to the order in which gradients are added. Its micro-batches draw from one
stream of random numbers: each begins with the state in which the one before it, on another process, has left the
generators. Where that can be told beforehand, since a network draws as much for every micro-batch, nobody waits for it.
"""

import contextlib
import datetime
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from diffusionblocks.base.files import PATIENCE, UserError

HOST = "127.0.0.1"
TIMEOUT = datetime.timedelta(seconds=4 * PATIENCE)  # of a message: the first process may be waiting for space on a disk
GRACE = 30  # seconds in which a process may find out by itself that another one is gone
OFFSET = 8  # bytes at the end of a GPU generator's state that count what it has drawn


class Team:
    """What the processes of a training say to each other.

    rank: this one's number; 0 is the trainer itself, which alone writes files. size: how many there are. device: of its
    tensors. buffers: of its network, by name, which an update must leave as they are.
    """

    def __init__(self, rank: int, size: int, device: torch.device, buffers: dict[str, Tensor]):
        self.rank, self.size = rank, size
        self._buffers = [(name, value, value._version) for name, value in buffers.items()]
        self.on_gpus = device.type == "cuda"
        self._moves = {}  # by key: how far an item moves the GPU's generator, where it moves no other
        self._steady, self._astray = True, False

    @contextlib.contextmanager
    def met(self, store: dist.Store) -> Iterator["Team"]:
        """In here all processes are in touch."""
        if Path("/sys/class/net/lo").exists():  # all are on this machine, wherever its name leads to
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if self.on_gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        try:
            yield self
        finally:
            dist.destroy_process_group()

    def share(self, items: Sequence, compute: Callable, key: object) -> Iterator[Any]:
        """compute(item) of every size-th item from this process's rank on, as if it had computed all before.

        key: items of one key are taken to draw equally many random numbers; `combine` tells where they did not. Raises
        UserError where `compute` changes a buffer.
        """
        sent = []
        for number in range(self.rank, len(items), self.size):
            if number:
                dist.recv(state := torch.empty_like(self._state()), (number - 1) % self.size)
                self._set(state)
            before, foreseen, passed_on = self._state(), None, number + 1 < len(items)
            if passed_on and self._steady and key in self._moves:
                sent.append(self._send(foreseen := self._moved(before, self._moves[key]), number + 1))
            result = compute(items[number])
            after = self._state()
            if foreseen is not None:
                self._astray |= not torch.equal(foreseen, after)
            elif passed_on:
                sent.append(self._send(after, number + 1))
            self._learn(key, before, after)
            self._check_buffers()
            yield result
        for work, _ in sent:
            work.wait()

    def combine(self, parameters: Iterable[Tensor], own: Tensor, count: int) -> Tensor | None:
        """Add up the gradients of all processes, in place; return what they have found of `count` items (count, k).

        own: (n, k), found for this process's items. None where an item drew another number of random numbers than those
        before it: then all is to be computed again, and from now on each item waits for the one before it.
        """
        parameters = list(parameters)
        flags = torch.tensor([self._astray, *(value.grad is not None for value in parameters)], dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        astray, *reached = flags.tolist()
        if astray:
            self._steady = self._astray = False
            return None
        found = own.new_zeros(count, own.shape[1])
        found[self.rank :: self.size] = own
        works = [dist.all_reduce(found, async_op=True)]
        for value in (value for value, is_reached in zip(parameters, reached, strict=True) if is_reached):
            if value.grad is None:
                value.grad = torch.zeros_like(value)
            works.append(dist.all_reduce(value.grad, async_op=True))
        for work in works:
            work.wait()
        return found

    def told(self, word: bool) -> bool:
        """What the first process says, on all of them."""
        dist.broadcast(said := torch.tensor([word]), 0)
        return bool(said)

    def _state(self):
        state = torch.random.get_rng_state()
        return torch.cat([state, torch.cuda.get_rng_state()]) if self.on_gpus else state

    def _set(self, state):
        size = len(torch.random.get_rng_state())
        torch.random.set_rng_state(state[:size])
        if self.on_gpus:
            torch.cuda.set_rng_state(state[size:])

    def _send(self, state, number):
        return dist.isend(state, number % self.size), state  # which must live until it has arrived

    def _moved(self, state, move):
        state = state.clone()
        if move:
            state[-OFFSET:].view(torch.int64).add_(move)
        return state

    def _learn(self, key, before, after):
        """Only a GPU's generator can be moved on without drawing: of an item that moves the CPU's nothing is known."""
        move = int(after[-OFFSET:].view(torch.int64) - before[-OFFSET:].view(torch.int64)) if self.on_gpus else 0
        if torch.equal(self._moved(before, move), after):
            self._moves[key] = move
        else:
            self._moves.pop(key, None)

    def _check_buffers(self):
        for name, value, version in self._buffers:
            if self.rank == 0 and value._version != version:
                raise UserError(
                    f"{name}: every micro-batch changes it, as a batch norm its statistics, so that one GPU has to see "
                    "them all. Ask for one alone (`gpu: 1` of train in the profile)"
                )


@contextlib.contextmanager
def lead(team: Team, work: Callable, arguments: tuple, deaf_to: Iterable[signal.Signals]) -> Iterator[Team]:
    """In here the first process of a team, while each other one calls work(team's rank, its size, store, *arguments).

    deaf_to: signals that are for the first process alone. Raises UserError where another process has ended.
    """
    store = dist.TCPStore(HOST, 0, team.size, is_master=True, wait_for_workers=False)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    visible = seen.split(",") if team.on_gpus else None
    helpers = [
        multiprocessing.get_context("spawn").Process(
            target=_help, args=(work, rank, team.size, store.port, arguments, visible), daemon=True
        )
        for rank in range(1, team.size)
    ]
    resource_tracker.ensure_running()  # started among the helpers, it would unblock what is blocked for them
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
    try:
        for helper in helpers:
            helper.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    lost, noticed, done = [], threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(helpers, lost, noticed, done), daemon=True).start()
    try:
        with team.met(store):
            try:
                yield team
            except BaseException as error:
                if not isinstance(error, UserError | torch.OutOfMemoryError):
                    noticed.wait(5)
                gone = list(lost)
                done.set()
                for helper in helpers:  # or parting from them would wait for them
                    helper.kill()
                if gone:
                    raise UserError(gone[0]) from error
                raise
        for helper in helpers:
            helper.join(GRACE)
    finally:
        done.set()
        for helper in helpers:
            helper.kill()
            helper.join()


def _help(work, rank, size, port, arguments, visible):
    """The whole life of another process than the first. It sees one GPU, and what it says is what goes wrong."""
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[rank]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        work(rank, size, dist.TCPStore(HOST, port, size, is_master=False), *arguments)
    except UserError as error:
        print(f"error: process {rank + 1} of {size}: {error}", file=sys.stderr, flush=True)
        sys.exit(UserError.exit_code)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _watch(helpers, lost, noticed, done):
    """Say in `lost` which process ends with an error. Where nothing else ends this one, do: a GPU waits for ever."""
    alive = {helper.sentinel: (number, helper) for number, helper in enumerate(helpers, 2)}
    while alive and not lost:
        for number, helper in map(alive.pop, connection.wait(alive)):
            helper.join()  # its end is seen before it can be asked for its code
            if helper.exitcode:
                lost.append(
                    f"process {number} of the {len(helpers) + 1} that train together has ended (exit code "
                    f"{helper.exitcode}); what it said stands above. Start the same command again: it goes on from the "
                    "last checkpoint."
                )
    noticed.set()
    if lost and not done.wait(GRACE):
        print(f"error: {lost[0]}", file=sys.stderr, flush=True)
        os._exit(UserError.exit_code)
