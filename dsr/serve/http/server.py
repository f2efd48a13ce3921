"""What every route needs: the models, the engines, the limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from dsr.models.model import Model
from dsr.serve.http.access import Access
from dsr.serve.http.limits import Limits
from dsr.serve.names import Named, Names
from dsr.serve.openai.kept_responses import KeptResponses
from dsr.serve.pool.pool import Pool

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Server:
    """Passed to the routes of each API."""

    names: Names
    pool: Pool
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    responses: KeptResponses = field(default_factory=KeptResponses)
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server ends: nothing may take long then

    async def named(self, name: str | None) -> Named:
        """What a name means. Looks at the disk, in another thread. Raises NotFound, UsageError."""
        return await run_in_threadpool(self.names.find, name)

    async def models(self) -> tuple[Model, ...]:
        """The models that may be asked for. Looks at the disk, in another thread."""
        return await run_in_threadpool(self.names.models)

    def client(self, request: Request) -> str:
        """Who asks: clients take turns. The address tells, and programs behind one address share a turn."""
        return request.client.host if request.client is not None else ""
