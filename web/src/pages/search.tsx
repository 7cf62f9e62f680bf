import { useEffect, useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { useLoad } from "../lib/load";
import { announce, ErrorNote, Heading } from "../ui/basics";
import { Card } from "../ui/card";
import { titleCard } from "./home";

/** As long as somebody types on, nothing is asked. */
const TYPING_MS = 150;

export function SearchPage({ query }: { query: string }) {
  const asked = useSettled(query.slice(0, 200), TYPING_MS);
  const { value, error, loading, reload } = useLoad(
    (signal) => (asked ? find(asked, signal) : Promise.resolve(undefined)),
    [],
    [asked],
  );
  const count = value?.hits.length ?? 0;
  const summary = value && (count ? `${count} film${count === 1 ? "" : "s"} for “${value.asked}”` : `No film is called anything like “${value.asked}”`);
  useEffect(() => {
    if (summary) announce(summary);
  }, [summary]);
  return (
    <section aria-busy={loading}>
      <Heading text={`Search: ${query}`} hidden />
      <ErrorNote error={error} retry={reload} />
      {summary && <p class="summary">{summary}</p>}
      <ul class="grid">
        {value?.hits.map((title) => (
          <li key={title.name}>
            <Card {...titleCard(title)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The index finds; the catalog says what it looks like now. */
async function find(asked: string, signal: AbortSignal): Promise<{ asked: string; hits: Title[] }> {
  const { hits } = await api.search.searchTitles({ query: asked, pageSize: 48 }, { signal });
  if (!hits.length) return { asked, hits: [] };
  return { asked, hits: (await api.catalog.batchGetTitles({ names: hits.map((hit) => hit.title) }, { signal })).titles };
}

/** The value, once it has stayed the same for a while. */
function useSettled(value: string, ms: number): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}
