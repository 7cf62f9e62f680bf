import { useState } from "preact/hooks";
import { Title_State, type Episode, type Season, type Series } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api, session } from "../api/clients";
import { useLoad } from "../lib/load";
import { length, seconds } from "../lib/time";
import { isOperator, isPublisher } from "../state";
import { Badge, ErrorNote, Heading, Loading } from "../ui/basics";
import { Art } from "../ui/art";
import { Icon } from "../ui/icon";
import { WatchButton } from "../ui/watch_button";
import { titleNote } from "./home";
import { EpisodeTools, SeriesTools } from "./series_tools";

const PAGE_SIZE = 200;

export interface WholeSeries {
  readonly series: Series;
  readonly seasons: Season[];
  readonly episodes: Episode[];
}

async function load(name: string, signal: AbortSignal): Promise<WholeSeries> {
  const [{ series }, { seasons }] = await Promise.all([
    api.series.getSeries({ name }, { signal }),
    api.series.listSeasons({ parent: name }, { signal }),
  ]);
  if (!series) throw new Error("The server answered without a series");
  const episodes: Episode[] = [];
  for (let pageToken = ""; ; ) {
    const page = await api.series.listEpisodes({ parent: `${name}/seasons/-`, pageSize: PAGE_SIZE, pageToken }, { signal });
    episodes.push(...page.episodes);
    pageToken = page.nextPageToken;
    if (!pageToken) return { series, seasons, episodes };
  }
}

export const seasonName = (season: Season): string => season.displayName || (season.number ? `Season ${season.number}` : "Specials");

export const isReady = (state: Title_State | undefined): boolean => state === Title_State.PLAYABLE || state === Title_State.COMPLETE;

export function SeriesPage({ id }: { id: string }) {
  const { value, error, reload } = useLoad((signal) => load(`series/${id}`, signal), [id]);
  if (!value) return error ? <ErrorNote error={error} retry={reload} /> : <Loading what="the series" />;
  const { series, episodes } = value;
  const first = episodes.find((episode) => isReady(episode.details?.state));
  const owned = isPublisher.value && (series.owner === session.value?.user || isOperator.value);
  const facts = [series.releaseYear ? String(series.releaseYear) : "", ...series.genres].filter(Boolean);
  return (
    <article class="title-page">
      <div class="stage short">
        <Art name={series.name} displayName={series.displayName} artwork={series.artwork} large />
        {first && (
          <div class="stage-actions">
            <a class="button primary big" href={`#/${first.title}?play`}>
              <Icon name="play" /> Play episode {first.number}
            </a>
          </div>
        )}
      </div>
      <div class="title-text">
        <Heading text={series.displayName}>
          <span dir="auto">{series.displayName}</span>
        </Heading>
        {facts.length > 0 && (
          <ul class="facts" aria-label="About the series">
            {facts.map((fact) => (
              <li key={fact}>{fact}</li>
            ))}
          </ul>
        )}
        {series.description && (
          <p class="description" dir="auto">
            {series.description}
          </p>
        )}
        <div class="tools">
          <WatchButton subject={series.name} />
          {owned && <SeriesTools whole={value} onChange={reload} />}
        </div>
      </div>
      <Episodes whole={value} owned={owned} onChange={reload} />
    </article>
  );
}

function Episodes({ whole, owned, onChange }: { whole: WholeSeries; owned: boolean; onChange: () => void }) {
  const inside = (season: Season) => whole.episodes.filter((episode) => episode.name.startsWith(`${season.name}/`));
  const shown = owned ? whole.seasons : whole.seasons.filter((season) => inside(season).length);
  const [chosen, setChosen] = useState<string | undefined>(undefined);
  const season = shown.find((one) => one.name === chosen) ?? shown.find((one) => one.number > 0) ?? shown[0];
  if (!season) return <p class="hint">There are no episodes yet.</p>;
  const episodes = inside(season);
  return (
    <section class="episodes" aria-labelledby="episodes">
      <h2 id="episodes" class="visually-hidden">
        Episodes
      </h2>
      <div class="tabs" role="group" aria-label="Season">
        {shown.map((one) => (
          <button key={one.name} type="button" aria-pressed={one.name === season.name} onClick={() => setChosen(one.name)}>
            {seasonName(one)}
          </button>
        ))}
      </div>
      {episodes.length === 0 && <p class="hint">This season has no episodes yet.</p>}
      <ol class="episode-list">
        {episodes.map((episode) => (
          <li key={episode.name}>
            <EpisodeLine episode={episode} />
            {owned && <EpisodeTools episode={episode} season={season} all={episodes} onChange={onChange} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

function EpisodeLine({ episode: { number, title: name, details } }: { episode: Episode }) {
  if (!details) return null;
  const note = titleNote(details) ?? (isReady(details.state) ? undefined : "Not ready yet");
  return (
    <a class="episode" href={`#/${name}`}>
      <div class="episode-art">
        <Art name={name} displayName={details.displayName} artwork={details.artwork} />
      </div>
      <div class="episode-text">
        <h3 dir="auto">
          {number}. {details.displayName}
        </h3>
        <p class="dim">
          {details.duration ? length(seconds(details.duration)) : ""} {note && <Badge tone="plain">{note}</Badge>}
        </p>
        {details.description && <p dir="auto">{details.description}</p>}
      </div>
    </a>
  );
}
