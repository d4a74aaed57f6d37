"""The admin server: figures for Prometheus and for people, and whether the proxy is ready. Read only.

    GET /metrics        Prometheus text
    GET /api/queries    JSON, a list of rows (`views.QUERIES`); parameters:
                        sort=total|calls|mean|p50|p90|p95|p99|p99.9|max|rows|errors|wait (else: total),
                        order=desc|asc (else: desc), limit=1..10000 (else: 100)
    GET /livez          200 `ok` as long as the process serves anything
    GET /readyz         200 `ready`, or 503 and the reason why not

Errors are JSON: `{"error": "..."}`, and `"parameter"` names the one that was wrong.
"""

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from proxy.admin import views
from proxy.config.address import TcpAddress
from proxy.observe.metrics import Metrics
from proxy.observe.statistics import QueryStatistics

# No request here has a body or needs much of a header. A connection is kept for the next scrape, and as long
# for a request that doesn't arrive.
_LARGEST_BODY = 1024
_LONGEST_LINE = 4096
_ANSWER_SECONDS = 10.0
_KEEPALIVE_SECONDS = 75.0
_CLOSE_SECONDS = 1.0
_LARGEST_LIMIT = 10_000


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


# Who sends what is no HTTP is answered 400; a traceback of ours would help nobody.
_logger = logging.getLogger(__name__)
_logger.addFilter(_is_our_fault)


class AdminServer:
    """Serves one address. `readiness` gives None when the proxy is ready, else the reason why not.

    `refresh` is awaited before each answer that needs fresh figures or readiness.
    """

    def __init__(
        self,
        metrics: Metrics,
        statistics: QueryStatistics,
        readiness: Callable[[], str | None],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._readiness = readiness
        self._refresh = refresh
        self._runner: web.AppRunner | None = None
        self._own_name: str | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """`host:port` as bound; empty before `start`."""
        return self._address

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. OSError when that can't be."""
        # Beyond loopback everybody can ask anyway, by whatever name the network has for this machine.
        self._own_name = host.lower() if TcpAddress(host, port).is_loopback else None
        application = web.Application(middlewares=[self._guard], client_max_size=_LARGEST_BODY)
        application.router.add_get("/metrics", self._get_metrics)
        application.router.add_get("/api/queries", self._get_queries)
        application.router.add_get("/livez", self._get_livez)
        application.router.add_get("/readyz", self._get_readyz)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=_logger,
            handle_signals=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            lingering_time=_CLOSE_SECONDS,
            shutdown_timeout=_CLOSE_SECONDS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        bound = runner.addresses[0]
        self._address = str(TcpAddress(bound[0], bound[1]))

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses what was meant for another name, bounds the time, and makes every error JSON."""
        if not self._is_own_name(request.headers.get("Host")):
            return _error(403, "this address serves localhost and IP addresses only, not the Host asked for")
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await handler(request)
        except _BadParameterError as error:
            return _error(400, str(error), parameter=error.parameter)
        except web.HTTPMethodNotAllowed as error:
            return _error(
                405, "only GET and HEAD are answered here", headers={"Allow": error.headers["Allow"]}
            )
        except web.HTTPNotFound:
            return _error(404, "there are /metrics, /api/queries, /livez and /readyz")
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except TimeoutError:
            return _error(503, f"no answer within {_ANSWER_SECONDS:.0f} s")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _is_own_name(self, host: str | None) -> bool:
        """Whether a request is really for this server.

        On loopback a page in a browser could have its own name resolve to us (DNS rebinding) and read the
        answers; no such name is an IP address or localhost.
        """
        if self._own_name is None or host is None:
            return True
        name = re.sub(r":[0-9]*$", "", host).lower().strip("[]").rstrip(".")
        if name in ("localhost", self._own_name) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _refreshed(self) -> None:
        if self._refresh is not None:
            await self._refresh()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        await self._refreshed()
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_queries(self, request: web.Request) -> web.Response:
        query = _parameters(request, ("sort", "order", "limit"))
        sort = _choice(query, "sort", list(views.SORTS), "total")
        order = _choice(query, "order", ["desc", "asc"], "desc")
        limit = query.get("limit", "100")
        if not re.fullmatch("[0-9]{1,5}", limit, re.ASCII) or not 1 <= int(limit) <= _LARGEST_LIMIT:
            raise _BadParameterError("limit", f"must be a whole number from 1 to {_LARGEST_LIMIT}")
        await self._refreshed()
        rows = views.queries(self._statistics, sort=sort, descending=order == "desc", limit=int(limit))
        return _json(200, rows)

    async def _get_livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _get_readyz(self, request: web.Request) -> web.Response:
        await self._refreshed()
        reason = self._readiness()
        if reason is None:
            return web.Response(text="ready")
        return web.Response(status=503, text=reason)


class _BadParameterError(Exception):
    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter} {problem}")
        self.parameter = parameter


def _parameters(request: web.Request, known: Sequence[str]) -> dict[str, str]:
    """The request's parameters, each known and given once."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            raise _BadParameterError(name, f"is unknown; there are {', '.join(known)}")
        if name in given:
            raise _BadParameterError(name, "is given twice")
        given[name] = value
    return given


def _choice(given: Mapping[str, str], name: str, allowed: Sequence[str], default: str) -> str:
    value = given.get(name, default)
    if value not in allowed:
        raise _BadParameterError(name, f"must be one of {', '.join(allowed)}")
    return value


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> web.Response:
    text = json.dumps(value, separators=(",", ":")) + "\n"
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)


def _error(
    status: int, message: str, *, parameter: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    value = {"error": message}
    if parameter is not None:
        value["parameter"] = parameter
    return _json(status, value, headers)
