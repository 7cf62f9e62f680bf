import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import type { View } from "kino-stubs/kino/history/v1/resources_pb.js";
import { Code } from "@connectrpc/connect";
import { api } from "../api/clients";
import { isCode } from "../api/errors";
import { useLoad, usePages } from "../lib/load";
import { length, seconds } from "../lib/time";
import { isPublisher, profile } from "../state";
import { ErrorNote, Heading, Loading } from "../ui/basics";
import { Card } from "../ui/card";
import { Icon } from "../ui/icon";

const PAGE_SIZE = 48;

export const titleDetails = (title: Title): string[] => [
  ...(title.releaseYear ? [String(title.releaseYear)] : []),
  ...(title.duration ? [length(seconds(title.duration))] : []),
];

export function HomePage() {
  return (
    <>
      <Heading text="Home" hidden />
      <ContinueWatching />
      <AllTitles />
    </>
  );
}

interface Begun {
  readonly view: View;
  readonly title: Title;
}

/** Titles that were deleted meanwhile are left out. */
async function loadBegun(parent: string, signal: AbortSignal): Promise<Begun[]> {
  const { views } = await api.history.listContinueWatching({ parent, pageSize: 12 }, { signal });
  const found = await Promise.all(
    views.map(async (view) => {
      try {
        const { title } = await api.catalog.getTitle({ name: view.title }, { signal });
        return title && { view, title };
      } catch (error) {
        if (isCode(error, Code.NotFound, Code.PermissionDenied)) return undefined;
        throw error;
      }
    }),
  );
  return found.filter((one) => one !== undefined);
}

function ContinueWatching() {
  const parent = profile.value?.name ?? "";
  const { value, error, reload } = useLoad((signal) => loadBegun(parent, signal), [parent]);
  if (error) return <ErrorNote error={error} retry={reload} />;
  if (!value?.length) return null;
  return (
    <section aria-labelledby="continue">
      <h2 id="continue">Continue watching</h2>
      <ul class="row" tabIndex={0} aria-labelledby="continue">
        {value.map(({ view, title }) => (
          <li key={view.name}>
            <Card {...begunCard(view, title)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function begunCard(view: View, title: Title) {
  const total = seconds(title.duration ?? view.titleDuration);
  const at = seconds(view.position);
  return {
    name: title.name,
    displayName: title.displayName,
    watched: total ? at / total : 0,
    details: total ? [`${length(Math.max(1, total - at))} left`] : [],
    play: true,
  };
}

function AllTitles() {
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.catalog.listTitles({ pageSize: PAGE_SIZE, pageToken }, { signal });
    return { items: answer.titles, nextPageToken: answer.nextPageToken };
  }, []);
  return (
    <section aria-labelledby="all">
      <h2 id="all">All films</h2>
      <ErrorNote error={error} retry={reload} />
      {!value && !error && <Loading what="films" />}
      {value?.length === 0 && <Empty />}
      {value && (
        <ul class="grid">
          {value.map((title) => (
            <li key={title.name}>
              <Card name={title.name} displayName={title.displayName} state={title.state} details={titleDetails(title)} />
            </li>
          ))}
        </ul>
      )}
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}

const Empty = () => (
  <div class="empty">
    <Icon name="film" size={56} />
    <p>No films are here yet.</p>
    {isPublisher.value ? (
      <a class="button primary" href="#/upload">
        <Icon name="upload" size={20} /> Upload the first one
      </a>
    ) : (
      <p class="hint">A publisher can upload the first one.</p>
    )}
  </div>
);
