"""The index on Elasticsearch: it finds candidates by n-grams, the domain ranks them.

A generation is an index `<alias>-<n>`; the alias names the one that answers, `<alias>-building` the one that
is being built. Text is cut into n-grams here, as for the embedded index (`services.search.text`): both find
the same, and no plug-in, analysis component or script is asked of the server.

A title's version is the document's external version, so that the server itself refuses older ones. Deleted
titles stay as marks: it forgets the versions of deleted documents after a minute (`index.gc_deletes`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError, AsyncElasticsearch, UnsupportedProductError

from services.runtime.call import remaining_s
from services.runtime.errors import FailedPrecondition
from services.runtime.life import Dependency
from services.runtime.settings import Settings, SettingsError
from services.search.model import Document, Hit, Viewer, rank
from services.search.store import IndexLost, RebuildSuperseded, SearchUnavailable
from services.search.text import fold, grams, lookups, terms

#: The oldest server the client speaks with: it asks for answers in this version's form.
OLDEST_SERVER = 9
#: How many candidates are ranked at least; see `services.search.store_sqlite`.
_CANDIDATES = 100
#: Rises with every change of `_MAPPINGS`: an index of another format is built anew.
_FORMAT = 1
_TIMEOUT_S = 10.0
_RETRY_MS = 1_000
#: A swap or a new rebuild may come in between a few times, not for ever.
_TRIES = 5

_SETTINGS: dict[str, Any] = {
    "number_of_shards": 1,  # a million titles are well below what one holds, and scores are comparable
    "auto_expand_replicas": "0-1",
    "translog.durability": "request",  # acknowledged means fsynced
    "refresh_interval": "200ms",  # what a put waits for at most
}
#: A title's line of action in a bulk request, and its document.
_Action = tuple[Mapping[str, Any], Mapping[str, Any]]
_SHOWN = {"index": False, "doc_values": False}
_MAPPINGS: dict[str, Any] = {
    "dynamic": "strict",
    "_source": {"excludes": ["pieces"]},
    "properties": {
        # The terms of a name are a set, so where and how often they occur says nothing.
        "pieces": {"type": "text", "analyzer": "whitespace", "index_options": "docs"},
        "owner": {"type": "keyword"},
        "visible": {"type": "boolean"},
        "deleted": {"type": "boolean"},
        "title": {"type": "keyword", **_SHOWN},
        "display_name": {"type": "keyword", **_SHOWN},
        "version": {"type": "long", **_SHOWN},
        "release_year": {"type": "integer", **_SHOWN},
    },
}


class ForeignIndex(FailedPrecondition):
    """{index} in Elasticsearch is no index of Kino: set KINO_ELASTICSEARCH_INDEX to another name."""

    reason = "SEARCH_INDEX_FOREIGN"
    fields = ("index",)


class WrongMapping(FailedPrecondition):
    """The search index was changed from outside ({problem}): build it anew with POST /v1/index:rebuild."""

    reason = "SEARCH_INDEX_WRONG"
    fields = ("problem",)


class SearchRefused(FailedPrecondition):
    """Elasticsearch refuses Kino ({problem}): check KINO_ELASTICSEARCH_API_KEY and its rights."""

    reason = "SEARCH_REFUSED"
    fields = ("problem",)


class WrongServer(FailedPrecondition):
    """What answers at KINO_ELASTICSEARCH_URLS is no Elasticsearch 9 or newer."""

    reason = "SEARCH_WRONG_SERVER"


@dataclass(frozen=True, kw_only=True)
class State:
    """The generations as the server has them."""

    #: The index that answers; None when there is none.
    answering: str | None
    #: Whether it was built to its end, in this format.
    whole: bool


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at the engine found."""

    #: Major version of the oldest node.
    oldest_version: int
    #: Of the node that is furthest from ours; negative when it is behind.
    clock_ahead_s: float
    #: Whether we may make, fill and delete indexes of our name.
    may_write: bool
    #: Titles in the answering index; None when there is none, or it can't be counted.
    title_count: int | None
    #: Whether that index was built to its end.
    whole: bool
    #: Health of that index: `green`, `yellow` (a copy is missing) or `red`; empty when there is none.
    status: str


class ElasticIndex:
    """A `TitleIndex` on Elasticsearch."""

    def __init__(self, urls: Sequence[str], alias: str, api_key: str = "") -> None:
        """Connects at the first use; nodes that don't answer are passed over."""
        self._client = AsyncElasticsearch(
            list(urls),
            api_key=api_key or None,
            max_retries=max(1, len(urls)),
            retry_on_status=(),  # repeating is the caller's, within its deadline
            retry_on_timeout=False,
        )
        self._alias, self._building = alias, f"{alias}-building"
        self._generation = re.compile(f"{re.escape(alias)}-([0-9]+)")

    def dependency(self, *serves: str) -> Dependency:
        """This engine, as what the health names in `serves` stand on."""
        return Dependency(name="elasticsearch", serves=serves, open=self.prepare, check=self.check)

    async def prepare(self) -> None:
        """Make an empty generation if none answers. Raises `ForeignIndex`."""
        if (await self.state()).answering is not None:
            return
        add = {"add": {"index": await self._create(), "alias": self._alias, "is_write_index": True}}
        try:
            with _typed():
                await self._asked().indices.update_aliases(actions=[add])
        except (WrongMapping, SearchUnavailable):  # the alias takes one index: another process was first
            await self.check()

    async def check(self) -> None:
        """A sign of life. Raises `IndexLost` when no generation answers."""
        if (await self.state()).answering is None:
            raise IndexLost(retry_after_ms=_RETRY_MS)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def put(self, documents: Sequence[Document]) -> None:
        """See `TitleIndex.put`."""
        if not documents:
            return
        actions = [_action(document) for document in documents]
        for _ in range(_TRIES):
            # The first of them tells whether a generation is being built, without a question of its own.
            first, *answered = await self._bulk(
                [(self._building, actions[0]), *((self._alias, action) for action in actions)], refresh=True
            )
            if any(index is None for index in answered):
                if (await self.state()).answering is None:
                    raise IndexLost(retry_after_ms=_RETRY_MS)
                continue  # the old generation was dropped in this moment
            others = [(self._building, action) for action in actions[1:]] if first else []
            if all(await self._bulk(others)):
                return  # else the building one was finished in this moment: it may lack them
        raise SearchUnavailable(retry_after_ms=_RETRY_MS)

    async def search(self, query: str, viewer: Viewer, limit: int) -> list[Hit]:
        """See `TitleIndex.search`."""
        if not fold(query):
            return []
        with _typed():
            found = await self._asked().search(index=self._alias, **candidates(query, viewer, limit))
        return rank(query, (Document(**hit["_source"]) for hit in found["hits"]["hits"]))[:limit]

    async def built(self) -> bool:
        """See `TitleIndex.built`."""
        state = await self.state()
        return state.answering is not None and state.whole and not await self._damaged(state.answering)

    async def begin(self) -> int:
        """See `TitleIndex.begin`."""
        index = await self._create()
        move = [
            {"remove": {"index": f"{self._alias}-*", "alias": self._building, "must_exist": False}},
            {"add": {"index": index, "alias": self._building, "is_write_index": True}},
        ]
        with _typed(lost=RebuildSuperseded()):
            await self._asked().indices.update_aliases(actions=move)
        await self._drop_older(index)
        return self._number(index)

    async def fill(self, generation: int, documents: Sequence[Document]) -> None:
        """See `TitleIndex.fill`."""
        alias = self._filling(generation)
        if not all(await self._bulk([(alias, _action(document)) for document in documents])):
            raise RebuildSuperseded()

    async def finish(self, generation: int) -> int:
        """See `TitleIndex.finish`."""
        index = self._name(generation)
        swap = [
            {"remove": {"index": index, "alias": self._building, "must_exist": True}},
            {"remove": {"index": index, "alias": self._filling(generation), "must_exist": True}},
            {"remove": {"index": f"{self._alias}-*", "alias": self._alias, "must_exist": False}},
            {"add": {"index": index, "alias": self._alias, "is_write_index": True}},
        ]
        with _typed(lost=RebuildSuperseded()):
            await self._asked().indices.refresh(index=index)
            alive = await self._asked().count(index=index, query={"term": {"deleted": False}})
            await self._asked().indices.put_mapping(index=index, meta=_meta(built=True))
            await self._asked().indices.update_aliases(actions=swap)
        await self._drop_older(index)
        return int(alive["count"])

    async def state(self) -> State:
        """The generations. Raises `ForeignIndex` when the alias leads to something else."""
        with _typed():
            found = await self._asked().indices.get(
                index=self._alias, ignore_unavailable=True, filter_path="*.mappings._meta,*.aliases"
            )
        if not found.body:
            return State(answering=None, whole=False)
        ((name, index), *others) = found.body.items()
        meta = index.get("mappings", {}).get("_meta", {}).get("kino")
        if others or meta is None or not self._generation.fullmatch(name):
            raise ForeignIndex(name)
        return State(answering=name, whole=meta == _meta(built=True)["kino"])

    async def examine(self) -> Seen:
        """Look at server and index, and change nothing. Raises what keeps Kino from using them."""
        with _typed():
            nodes = await self._asked().nodes.info(filter_path="nodes.*.version")
            clocks = await self._asked().nodes.stats(metric="os", filter_path="nodes.*.timestamp")
            # A server without security has no such call, and lets everybody do everything.
            rights = await self._asked(ignore_status=[400, 404, 405]).security.has_privileges(
                index=[{"names": [self._alias, f"{self._alias}-*"], "privileges": ["all"]}]
            )
        versions = [int(node["version"].split(".")[0]) for node in nodes["nodes"].values()]
        ahead_s = max((node["timestamp"] / 1e3 - time.time() for node in clocks["nodes"].values()), key=abs)
        state, count, status = await self.state(), None, ""
        if state.answering is not None:
            with _typed():
                health = await self._asked().cluster.health(index=state.answering)
                status = str(health["status"])
                if status != "red":
                    alive = {"term": {"deleted": False}}
                    count = (await self._asked().count(index=state.answering, query=alive))["count"]
        return Seen(
            oldest_version=min(versions),
            clock_ahead_s=ahead_s,
            may_write=rights.body.get("has_all_requested", True),
            title_count=count,
            whole=state.whole,
            status=status,
        )

    async def _damaged(self, index: str) -> bool:
        """Whether the server has given the index's data up: every copy is missing or corrupt."""
        with _typed():
            routing = await self._asked().cluster.state(
                metric="routing_table", index=index, filter_path="**.unassigned_info"
            )
        shards = routing.body.get("routing_table", {}).get("indices", {}).get(index, {}).get("shards", {})
        lost = [copy["unassigned_info"] for copies in shards.values() for copy in copies]
        return any(info.get("allocation_status") == "no_valid_shard_copy" for info in lost)

    async def _create(self) -> str:
        """A new, empty generation above all there are; its index."""
        for _ in range(_TRIES):
            generation = max(map(self._number, await self._indexes()), default=0) + 1
            with _typed():
                made = await self._asked(ignore_status=400).indices.create(
                    index=self._name(generation),
                    settings=_SETTINGS,
                    mappings={**_MAPPINGS, "_meta": _meta(built=False)},
                    aliases={self._filling(generation): {}},
                )
            if "error" not in made.body:
                return self._name(generation)
            if made.body["error"].get("type") != "resource_already_exists_exception":
                raise WrongMapping(_cause(made.body))
        raise SearchUnavailable(retry_after_ms=_RETRY_MS)

    async def _drop_older(self, index: str) -> None:
        """Delete the generations before `index` that don't answer."""
        answering = (await self.state()).answering
        older = [
            name
            for name in await self._indexes()
            if name != answering and self._number(name) < self._number(index)
        ]
        if older:
            with _typed():
                await self._asked().indices.delete(index=older, ignore_unavailable=True)

    async def _indexes(self) -> list[str]:
        """All generations there are, whether they answer or not."""
        with _typed():
            found = await self._asked().indices.get(index=f"{self._alias}-*", filter_path="*.aliases")
        return [name for name in found.body if self._generation.fullmatch(name)]

    async def _bulk(
        self,
        items: Sequence[tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]]]],
        *,
        refresh: bool = False,
    ) -> list[str | None]:
        """Write documents to aliases; for each the index it got to, None where the alias leads nowhere."""
        if not items:
            return []
        lines: list[Mapping[str, Any]] = []
        for alias, (action, body) in items:
            lines += [{"index": {"_index": alias, **action}}, body]
        with _typed():
            done = await self._asked().bulk(
                operations=lines,
                require_alias=True,  # a missing index is never made up from its first document
                refresh="wait_for" if refresh else False,
                filter_path="items.*._index,items.*.status,items.*.error.type,items.*.error.reason",
            )
        return [_written(item["index"]) for item in done["items"]]

    def _asked(self, **options: Any) -> AsyncElasticsearch:
        """The client, in the time the call has left."""
        left_s = remaining_s()
        within_s = _TIMEOUT_S if left_s is None else min(max(left_s, 0.001), _TIMEOUT_S)  # 0 means no limit
        return self._client.options(request_timeout=within_s, **options)

    def _name(self, generation: int) -> str:
        return f"{self._alias}-{generation}"

    def _filling(self, generation: int) -> str:
        """The alias a generation is filled through, which goes with it: an alias is never made by a write."""
        return f"{self._building}-{generation}"

    def _number(self, index: str) -> int:
        return int(index.rpartition("-")[2])


def open_index(settings: Settings) -> ElasticIndex:
    """The index that the settings name. Raises `SettingsError` when they name no node."""
    if not settings.elasticsearch_urls:
        raise SettingsError(
            "Search is set to Elasticsearch without a node: set KINO_ELASTICSEARCH_URLS to '[\"http://…:9200\"]'."
        )
    key = settings.elasticsearch_api_key.get_secret_value()
    return ElasticIndex(settings.elasticsearch_urls, settings.elasticsearch_index, key)


def _meta(*, built: bool) -> dict[str, Any]:
    return {"kino": {"format": _FORMAT, "built": built}}


def _action(document: Document) -> _Action:
    pieces = [] if document.deleted else terms(grams(fold(document.display_name)))
    action = {"_id": document.title, "version": document.version, "version_type": "external"}
    return action, {**asdict(document), "pieces": " ".join(pieces)}


def candidates(query: str, viewer: Viewer, limit: int) -> dict[str, Any]:
    """The request that finds what is then ranked."""
    pieces = " ".join(sorted(terms(lookups(fold(query)))))
    return {
        "query": {"bool": {"must": [{"match": {"pieces": pieces}}], "filter": _may_see(viewer)}},
        "size": max(limit, _CANDIDATES),
        "track_total_hits": False,
        "allow_partial_search_results": False,
        "preference": viewer.subject or None,  # one copy for all pages of a viewer
    }


def writes(alias: str, documents: Sequence[Document]) -> list[Mapping[str, Any]]:
    """The lines of a bulk request that writes titles to an alias."""
    actions = [_action(document) for document in documents]
    return [line for action, body in actions for line in ({"index": {"_index": alias, **action}}, body)]


def _may_see(viewer: Viewer) -> list[dict[str, Any]]:
    alive = {"term": {"deleted": False}}
    if viewer.sees_all:
        return [alive]
    seen = [{"term": {"visible": True}}, {"term": {"owner": viewer.subject}}]
    return [alive, {"bool": {"should": seen}}]


def _written(item: Mapping[str, Any]) -> str | None:
    """The index a document was written to, or had a newer version in."""
    status, error = item["status"], item.get("error", {})
    if status < 300 or status == 409:
        return str(item["_index"])
    if error.get("type") == "index_not_found_exception":
        return None
    raise _refused(status, f"{error.get('type')}: {error.get('reason')}")


@contextmanager
def _typed(lost: Exception | None = None) -> Iterator[None]:
    """Say the client's errors in the suite's words; `lost` is raised when an index or alias isn't there."""
    try:
        yield
    except TransportError as error:
        raise SearchUnavailable(retry_after_ms=_RETRY_MS) from error
    except UnsupportedProductError as error:
        raise WrongServer() from error
    except ApiError as error:
        if error.status_code == 404:
            raise lost or IndexLost(retry_after_ms=_RETRY_MS) from error
        raise _refused(error.status_code, _cause(error.body)) from error


def _refused(status: int, cause: str) -> Exception:
    if status in (408, 429) or status >= 500:
        return SearchUnavailable(retry_after_ms=_RETRY_MS)
    if status in (401, 403):
        return SearchRefused(cause)
    if "media_type_header_exception" in cause:
        return WrongServer()
    return WrongMapping(cause)


def _cause(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return f"{error.get('type')}: {error.get('reason')}" if isinstance(error, dict) else str(error)
