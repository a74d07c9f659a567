"""One method for both ways of waiting: what blocks a thread, and what an event loop awaits."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ._native import NativeError, Pending
from .errors import OpenError, RekindleError, told

P = ParamSpec("P")
T = TypeVar("T")


class Call(Generic[T]):
    """What a method asks of the native half, a `Pending`, and what is made of its answer; or of an error, which is raised otherwise."""

    def __init__(
        self,
        begin: Callable[[Any], Any],
        shape: Callable[[Any], T],
        failed: Callable[[RekindleError | OpenError], T] | None = None,
    ) -> None:
        self.begin = begin
        self.shape = shape
        self._failed = failed

    def failed(self, error: NativeError) -> T:
        """What is made of an error."""
        if self._failed is None:
            raise told(error) from None
        return self._failed(told(error))


class Blocking:
    """Whose methods block their thread until the answer is there."""

    def _native(self) -> Any:
        """What their calls begin with."""
        raise NotImplementedError

    def _go(self, call: Call[T]) -> T:
        try:
            return call.shape(call.begin(self._native()).wait())
        except NativeError as error:
            return call.failed(error)


class Awaiting:
    """Whose methods are awaited."""

    async def _native(self) -> Any:
        """What their calls begin with."""
        raise NotImplementedError

    async def _go(self, call: Call[T]) -> T:
        try:
            return call.shape(await later(call.begin(await self._native())))
        except NativeError as error:
            return call.failed(error)


class method(Generic[P, T]):
    """A method that makes a `Call`, as a method that gives what the call gives."""

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._make = make
        functools.update_wrapper(self, make)  # type: ignore[arg-type]

    @overload
    def __get__(self, instance: None, owner: type) -> method[P, T]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        make = self._make

        @functools.wraps(make)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance._go(make(instance, *args, **kwargs))

        return bound


def read(text: str) -> Any:
    """What came over the border."""
    return json.loads(text)


async def later(pending: Pending) -> Any:
    """What comes of work, without blocking the event loop. Whoever stops waiting does not stop the work."""
    if pending.done():
        return pending.wait()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    pending.later(lambda value, error: loop.call_soon_threadsafe(settle, value, error))
    return await future
