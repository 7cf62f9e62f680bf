import { Availability_State, type Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import type { View } from "kino-stubs/kino/history/v1/resources_pb.js";
import { api } from "../api/clients";
import { useLoad, usePages } from "../lib/load";
import { date, length, seconds } from "../lib/time";
import { watchlist } from "../lib/watchlist";
import { useState } from "preact/hooks";
import { isPublisher, profile } from "../state";
import { ErrorNote, Heading, Loading } from "../ui/basics";
import { Card } from "../ui/card";
import { Icon } from "../ui/icon";
import { SeriesText } from "./series_tools";

const PAGE_SIZE = 48;

export const titleDetails = (title: Title): string[] => [
  ...(title.releaseYear ? [String(title.releaseYear)] : []),
  ...(title.duration ? [length(seconds(title.duration))] : []),
];

/** What keeps somebody from watching it, or viewers from seeing it, in a word. */
export function titleNote(title: Title): string | undefined {
  if (title.unpublished) return "Not published";
  switch (title.availability?.state) {
    case Availability_State.UPCOMING:
      return `From ${date(title.availability.changeTime)}`;
    case Availability_State.EXPIRED:
      return "No longer available";
    case Availability_State.OUTSIDE_REGION:
      return "Not in your region";
    default:
      return undefined;
  }
}

/** Where an episode stands: `S1 E2`. */
export const placeText = (title: Title): string => (title.place ? `S${title.place.seasonNumber} E${title.place.episodeNumber}` : "");

export const titleCard = (title: Title) => ({
  name: title.name,
  displayName: title.displayName,
  artwork: title.artwork,
  state: title.state,
  note: titleNote(title),
  details: [...(title.place ? [`${title.place.seriesDisplayName} ${placeText(title)}`] : []), ...titleDetails(title)],
});

export function HomePage() {
  return (
    <>
      <Heading text="Home" hidden />
      <ContinueWatching />
      <MyList />
      <AllSeries />
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
  if (!views.length) return [];
  const { titles } = await api.catalog.batchGetTitles({ names: views.map((view) => view.title) }, { signal });
  return views.flatMap((view) => titles.filter((title) => title.name === view.title).map((title) => ({ view, title })));
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
  const stopped = seconds(view.position);
  // Beyond the end of a shorter film that took the place of the one that was watched: it begins at its start.
  const at = total && stopped >= total ? 0 : stopped;
  return {
    name: title.name,
    displayName: title.displayName,
    artwork: title.artwork,
    watched: total ? at / total : 0,
    details: [...(title.place ? [`${title.place.seriesDisplayName} ${placeText(title)}`] : []), ...(total ? [`${length(Math.max(1, total - at))} left`] : [])],
    play: true,
  };
}

function MyList() {
  const entries = watchlist.value;
  if (!entries?.length) return null;
  return (
    <section aria-labelledby="mine">
      <h2 id="mine">My list</h2>
      <ul class="row" tabIndex={0} aria-labelledby="mine">
        {entries.map(({ subject, details }) => (
          <li key={subject}>
            {details.case === "title" && <Card {...titleCard(details.value)} />}
            {details.case === "series" && <Card name={details.value.name} displayName={details.value.displayName} artwork={details.value.artwork} details={["Series"]} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

function AllSeries() {
  const [making, setMaking] = useState(false);
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.series.listSeries({ pageSize: PAGE_SIZE, pageToken }, { signal });
    return { items: answer.series, nextPageToken: answer.nextPageToken };
  }, []);
  if (error) return <ErrorNote error={error} retry={reload} />;
  if (!value?.length && !isPublisher.value) return null;
  return (
    <section aria-labelledby="series">
      <div class="section-head">
        <h2 id="series">Series</h2>
        {isPublisher.value && (
          <button type="button" class="button small" onClick={() => setMaking(true)}>
            <Icon name="plus" size={18} /> New series
          </button>
        )}
      </div>
      {making && <SeriesText onClose={() => setMaking(false)} onDone={() => setMaking(false)} />}
      <ul class="grid">
        {value?.map((series) => (
          <li key={series.name}>
            <Card name={series.name} displayName={series.displayName} artwork={series.artwork} details={series.releaseYear ? [String(series.releaseYear)] : []} />
          </li>
        ))}
      </ul>
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more series
        </button>
      )}
    </section>
  );
}

function AllTitles() {
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.catalog.listTitles({ pageSize: PAGE_SIZE, pageToken, withoutEpisodes: true }, { signal });
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
              <Card {...titleCard(title)} />
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
