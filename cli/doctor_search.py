"""What `kino doctor` looks at in Elasticsearch."""

from __future__ import annotations

from cli.findings import Finding, ok, warning, wrong
from services.runtime.errors import KinoError
from services.runtime.settings import Settings

_CHECK = "elasticsearch"
_MOST_CLOCK_ERROR_S = 5.0


async def examine_search(settings: Settings) -> list[Finding]:
    """Nothing for an embedded index: it is made by itself, in the data folder."""
    if settings.search_store != "elasticsearch":
        return []
    from services.search.store_elastic import OLDEST_SERVER, open_index

    try:
        index = open_index(settings)
    except KinoError as error:
        return [wrong(_CHECK, error.message)]
    try:
        seen = await index.examine()
    except KinoError as error:
        return [wrong(_CHECK, f"{error.message} Nodes: {', '.join(settings.elasticsearch_urls)}.")]
    finally:
        await index.close()
    if seen.oldest_version < OLDEST_SERVER:
        return [wrong(_CHECK, f"A node is of version {seen.oldest_version}: Kino needs {OLDEST_SERVER}.")]
    if not seen.may_write:
        alias = settings.elasticsearch_index
        return [wrong(_CHECK, f"The API key lacks the privilege `all` on {alias} and {alias}-*: grant it.")]
    if abs(seen.clock_ahead_s) > _MOST_CLOCK_ERROR_S:
        way = "ahead of" if seen.clock_ahead_s > 0 else "behind"
        sentence = f"A node's clock is {abs(seen.clock_ahead_s):.0f} s {way} ours: keep both by NTP."
        return [wrong(_CHECK, sentence)]
    if not seen.status:
        return [warning(_CHECK, "There is no search index yet: the search service makes it at its start.")]
    if seen.status == "red":
        return [wrong(_CHECK, "The search index has lost data: start the missing nodes, or rebuild it.")]
    if not seen.whole:
        return [warning(_CHECK, "The search index is not whole: the search service is building it.")]
    return [ok(_CHECK, f"Version {seen.oldest_version}, {seen.title_count} titles, index {seen.status}.")]
