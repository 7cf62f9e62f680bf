import { useEffect, useState } from "preact/hooks";
import { api } from "../api/clients";
import { useLoad } from "../lib/load";
import { announce, ErrorNote, Heading } from "../ui/basics";
import { Card } from "../ui/card";

/** As long as somebody types on, nothing is asked. */
const TYPING_MS = 150;

export function SearchPage({ query }: { query: string }) {
  const asked = useSettled(query.slice(0, 200), TYPING_MS);
  const { value, error, loading, reload } = useLoad(
    async (signal) => (asked ? { asked, hits: (await api.search.searchTitles({ query: asked, pageSize: 48 }, { signal })).hits } : undefined),
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
        {value?.hits.map((hit) => (
          <li key={hit.title}>
            <Card name={hit.title} displayName={hit.displayName} details={hit.releaseYear ? [String(hit.releaseYear)] : []} />
          </li>
        ))}
      </ul>
    </section>
  );
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
