"""Where a file store's calls run: the thread that does its blocking work, the lanes to it, and the event loops.

The calls of one turn of a loop go over to the thread together and come back together: waking a thread costs ten times
what most calls cost. A lone call does not wait for the end of its turn. `Turns` is for work that loops do themselves,
`LoopWriter` for changing entries in a loop, where no disk is behind the files (tmpfs), so that nothing has to wait.

Longer than other modules, because all ways on which a call may go share the time of its event loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, TypeVarTuple, overload

from storeconf.errors import StoreClosedError, StoreError
from storeconf.stores.file import system
from storeconf.stores.file.directory import translate
from storeconf.stores.file.operations import patiently
from storeconf.stores.file.reading import Busy, read_record
from storeconf.stores.file.writing import LARGE, EntryWriter, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from storeconf.stores.file.directory import Directory, NamespacePlace
    from storeconf.stores.file.format import Record
    from storeconf.stores.file.operations import ReadOperations, WriteOperations
    from storeconf.stores.file.syncing import SyncGroup
    from storeconf.stores.file.writing import LockedEntry

__all__ = ["LoopWriter", "Turns", "Worker"]


T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Call = tuple["asyncio.Future[Any]", "Callable[..., Any]", tuple[Any, ...]]
CallOutcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Lane:
    """The way of one event loop to the worker and back. All but `give` runs in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        self.loop = loop
        self.worker = worker
        self._pending: list[Call] | None = None
        self._alone = True  # whether the last batch had no more than one call
        self._latest: asyncio.Future[Any] = loop.create_future()  # that of the last call
        self._latest.cancel()
        self._outcomes: deque[list[CallOutcome]] = deque()
        self._mutex = threading.Lock()
        self._bell = -1
        # Half as dear as call_soon_threadsafe, but one can do without: on macOS, or when there are no descriptors left.
        with suppress(AttributeError, OSError):
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            Context().run(loop.add_reader, self._bell, self._take)  # without the variables of the first caller

    def submit(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Have the worker do something; the future of its outcome."""
        future: asyncio.Future[Any] = self.loop.create_future()
        call = (future, work, arguments)
        if self._pending is not None:
            self._pending.append(call)
        elif self._alone and self._latest.done():
            self.worker.put(self, [call])
        else:
            self._pending = [call]
            self.loop.call_soon(self._flush)
        self._latest = future
        return future

    def _flush(self) -> None:
        calls, self._pending = self._pending or [], None
        self._alone = len(calls) <= 1
        self.worker.put(self, calls)

    def give(self, outcomes: list[CallOutcome]) -> None:
        """Bring outcomes to the loop; called by the worker."""
        with self._mutex:
            if self._bell >= 0:
                self._outcomes.append(outcomes)
                os.eventfd_write(self._bell, 1)
                return
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self.loop.call_soon_threadsafe(self._settle, outcomes)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        while self._outcomes:
            self._settle(self._outcomes.popleft())

    def _settle(self, outcomes: list[CallOutcome]) -> None:
        for future, value, error in outcomes:
            if not future.done():
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)

    def detach(self) -> None:
        """Leave the loop; from another thread if the loop is closed."""
        closed = self.loop.is_closed()
        if self._bell >= 0 and not closed:
            self.loop.remove_reader(self._bell)
        with self._mutex:
            self.forget()
        while self._outcomes and not closed:
            self._settle(self._outcomes.popleft())

    def forget(self) -> None:
        """Close the lane's files, without the lock: in a forked child nobody may ever release it."""
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def __del__(self) -> None:
        self.forget()


_TURN = 0.003
"""Seconds that an event loop works for the store before others have their turn."""


class Turns:
    """Lets the other tasks of a thread's event loop have their turn while the loop itself does work for the store.

    Such work never suspends the task that asks for it. So when ``end`` has passed, `give` has to be awaited before
    more is done. All tasks that do so share the time of one round of the loop.
    """

    __slots__ = ("_loop", "_round_over", "_waiting", "end", "thread")

    def __init__(self, thread: int) -> None:
        self.thread: int = thread
        self.end: float = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._round_over = True  # whether the loop has called others since the last `give`
        self._waiting = 0

    async def give(self) -> None:
        """Give way, unless others have had their turn since the last time; then set another ``end``."""
        loop = asyncio.get_running_loop()
        if self._round_over or loop is not self._loop:
            self._loop = loop
            self._round_over = False
            loop.call_soon(self._end_round)
        else:
            self._waiting += 1
            try:
                await asyncio.sleep(0)
            finally:
                self._waiting -= 1
        self.end = time.monotonic() + _TURN / (1 + self._waiting)

    def _end_round(self) -> None:
        self._round_over = True


class _Job:
    """A call that takes several slices, or none that anybody waits for."""

    __slots__ = ("due", "future", "lane", "steps")

    def __init__(
        self, steps: Generator[float, None, Any], lane: Lane | None, future: asyncio.Future[Any] | None
    ) -> None:
        self.steps = steps
        self.lane = lane
        self.future = future
        self.due = 0.0


class Worker:
    """A thread that does the work that event loops hand over, in order, and long jobs slice by slice in between.

    With a ``group``, writes staged there are settled before any outcome of the same batch is told. ``cleanup`` is
    called last. Holds no store, so that a forgotten one can end it. ``reading`` and ``writing`` are the operations
    that may be handed over to this thread alone.
    """

    reading: ReadOperations
    writing: WriteOperations

    def __init__(
        self, name: str, directory: Directory, group: SyncGroup | None, cleanup: Callable[[], None] | None
    ) -> None:
        self.directory = directory
        self._group = group
        self._cleanup = cleanup
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._over = False
        self._queue: SimpleQueue[tuple[Lane, list[Call]] | None] = SimpleQueue()
        self._jobs: list[_Job] = []
        self._lanes: list[Lane] = []
        self._mutex = threading.Lock()
        self._last: Lane | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ------------------------------------------------------------------ for event loops

    def start(self, background: Generator[float, None, None] | None = None) -> None:
        """Start the thread; ``background`` is a job that nobody waits for."""
        if background is not None:
            self._jobs.append(_Job(background, None, None))
        self._thread.start()

    @overload
    def submit(self, work: Callable[[*Ts], Generator[float, None, T]], *arguments: *Ts) -> asyncio.Future[T]: ...

    @overload
    def submit(self, work: Callable[[*Ts], T], *arguments: *Ts) -> asyncio.Future[T]: ...

    def submit(self, work: Callable[[*Ts], Any], *arguments: *Ts) -> asyncio.Future[Any]:
        """Have something done on behalf of the running loop; the future of its outcome."""
        loop = asyncio.get_running_loop()
        lane = self._last
        if lane is None or lane.loop is not loop:
            lane = self._last = self._lane(loop)
        return lane.submit(work, *arguments)

    def _lane(self, loop: asyncio.AbstractEventLoop) -> Lane:
        with self._mutex:
            for lane in self._lanes:
                if lane.loop is loop:
                    return lane
            self._lanes = [lane for lane in self._lanes if not lane.loop.is_closed()]
            lane = Lane(loop, self)
            self._lanes.append(lane)
            return lane

    def put(self, lane: Lane, calls: list[Call]) -> None:
        """Hand a batch over."""
        self._queue.put((lane, calls))
        if self._over:
            self._refuse()

    def stop(self) -> None:
        """End the thread after the work that has been handed over before; `wait` for it. Long jobs fail."""
        self._queue.put(None)

    async def wait(self) -> None:
        """Wait until the thread has ended."""
        await asyncio.wrap_future(self._ended)
        while self._thread.is_alive():  # noqa: ASYNC110  # a thread cannot tell that it has ended
            await asyncio.sleep(0)

    def forget(self) -> None:
        """In a forked child, where the thread does not run: close the open files."""
        for lane in self._lanes:
            lane.forget()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._end()

    def _turn(self) -> bool:
        """Do one batch, then a slice of the job that is due; false at the end."""
        job = min(self._jobs, key=lambda job: job.due, default=None)
        try:
            if job is None:
                batch = self._queue.get()
            elif (wait := job.due - time.monotonic()) <= 0:
                batch = self._queue.get_nowait()
            else:
                batch = self._queue.get(timeout=wait)
        except Empty:
            pass
        else:
            if batch is None:
                return False
            self._do(*batch)
        if job is not None and job.due <= time.monotonic():
            self._advance(job)
        return True

    def _do(self, lane: Lane, calls: list[Call]) -> None:
        outcomes: list[CallOutcome] = []
        group = self._group
        for future, work, arguments in calls:
            if group is not None:
                group.ticket = future
            try:
                value = work(*arguments)
            except Busy:
                self._jobs.append(_Job(patiently(work, *arguments), lane, future))
            except Exception as error:  # noqa: BLE001  # it is raised where the outcome is awaited
                outcomes.append((future, None, self._translated(error)))
            else:
                if value.__class__ is GeneratorType:
                    self._jobs.append(_Job(value, lane, future))
                else:
                    outcomes.append((future, value, None))
        for ticket, failure in self._failures():
            outcomes = [outcome for outcome in outcomes if outcome[0] is not ticket]
            outcomes.append((ticket, None, failure))
        lane.give(outcomes)

    def _advance(self, job: _Job) -> None:
        future, lane = job.future, job.lane
        outcome: tuple[Any, BaseException | None] | None = None
        if future is not None and future.cancelled():
            job.steps.close()
            outcome = (None, None)
        else:
            if self._group is not None:
                self._group.ticket = future
            try:
                pause = next(job.steps)
            except StopIteration as done:
                outcome = (done.value, None)
            except Exception as error:  # noqa: BLE001  # it is raised where the outcome is awaited
                outcome = (None, self._translated(error))
            else:
                job.due = time.monotonic() + pause
        for _, failure in self._failures():
            outcome = (None, failure)
        if outcome is not None:
            self._jobs.remove(job)
            job.steps.close()
            if lane is not None and future is not None:
                lane.give([(future, *outcome)])

    def _failures(self) -> list[tuple[Any, StoreError]]:
        return self._group.failures() if self._group is not None else []

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            return translate(error, self.directory)
        return error

    def _end(self) -> None:
        self._over = True
        for job in self._jobs:
            job.steps.close()
            if job.lane is not None and job.future is not None:
                job.lane.give([(job.future, None, StoreClosedError("the store was closed meanwhile"))])
        self._jobs.clear()
        if self._cleanup is not None:
            self._cleanup()
        self._refuse()
        with self._mutex:
            lanes, self._lanes = self._lanes, []
        for lane in lanes:
            try:
                lane.loop.call_soon_threadsafe(lane.detach)
            except RuntimeError:  # the loop is closed
                lane.detach()
        self._ended.set_result(None)

    def _refuse(self) -> None:
        with suppress(Empty):
            while True:
                batch = self._queue.get_nowait()
                if batch is not None:
                    lane, calls = batch
                    lane.give([(call[0], None, StoreClosedError("the store was closed meanwhile")) for call in calls])


_LARGEST = LARGE + 8192
"""Bytes of the largest file that is read here."""


class LoopWriter(EntryWriter):
    """Changes small entries where no disk is behind the files, so that an event loop can do it. For one thread.

    Everything else raises Busy before anything is done: large entries, those of a new namespace, and all as long as it
    is not ``ready``; a thread makes it so by `prepare`. Names change by calls that do not let other threads run in the
    meantime: such a call takes less time than the thread might then have to wait for the interpreter.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self.ready: bool = False
        self._exchange = system.exchange_at_once

    def prepare(self) -> None:
        """Create and open the files that it needs, unless that was done before; nobody uses this writer meanwhile."""
        if self.ready:
            return
        try:
            os.stat(self.directory.home())
        except FileNotFoundError:
            self._warm.clear()
            self.directory.restore()
        if 0 not in self._warm:
            discard(self.directory.home() + b"/0")
        self.directory.locks.release(0)  # opened now, not when it is needed
        self.ready = True

    def lock(self, number: int) -> None:
        """Take the lock of an entry."""
        if not self.ready or self._exchange is None:
            raise Busy
        super().lock(number)

    def read(self, target: bytes, key: bytes) -> Record | None:
        """Return the record of a small file; its lock is held."""
        return read_record(target, key, alone=True, most=_LARGEST)

    def put(self, entry: LockedEntry, value: bytes, expiry: int) -> None:
        """Make a record the entry's if it is small; its lock is held."""
        if len(value) > LARGE:
            raise Busy
        super().put(entry, value, expiry)

    def put_header(self, entry: LockedEntry, record: Record, expiry: int) -> bool:
        """Overwrite the header; its lock is held."""
        self._check_locks()
        return super().put_header(entry, record, expiry)

    def remove(self, directory: bytes, name: bytes) -> bool:
        """Remove the entry's file, which was read before and so is small; its lock is held."""
        self._check_locks()
        try:
            system.unlink_at_once(directory + b"/" + name)
        except FileNotFoundError:
            return False
        return True

    def _check_locks(self) -> None:
        """Leave it to a thread if the directory has been replaced, and with it the file of the locks.

        A writer of a record notices that the spare file is missing.
        """
        if not os.fstat(self.directory.locks.fd).st_nlink:
            self._restore()

    def _move(self, place: NamespacePlace, spare: bytes, target: bytes) -> set[bytes]:
        try:
            system.rename_at_once(spare, target)
        except FileNotFoundError:  # a thread creates the namespace
            raise Busy from None
        return set()

    def _drop(self, spare: bytes) -> None:
        self._restore()  # a thread removes it

    def _restore(self) -> NoReturn:
        self.ready = False
        raise Busy
