import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Code } from "@connectrpc/connect";
import { Availability_State, Replacement_State, Title_State, type Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import type { View } from "kino-stubs/kino/history/v1/resources_pb.js";
import { api, session } from "../api/clients";
import { isCode, sentenceOfStatus } from "../api/errors";
import { useLoad } from "../lib/load";
import { go } from "../lib/router";
import { clock, length, seconds } from "../lib/time";
import type { PlayerProps } from "../player/player";
import { idOf, isOperator, isPublisher, profile } from "../state";
import { Badge, ErrorNote, Heading, Loading, Progress } from "../ui/basics";
import { Art } from "../ui/art";
import { Icon } from "../ui/icon";
import { WatchButton } from "../ui/watch_button";
import { titleNote } from "./home";
import { ReplacementNote } from "./replace_film";
import { isReady } from "./series";
import { TitleTools } from "./title_tools";

/** How often a title that is not complete is looked at again. */
const REFRESH_MS = 4000;

interface Shown {
  readonly title: Title;
  readonly view: View | undefined;
}

async function load(name: string, signal: AbortSignal): Promise<Shown> {
  const viewName = `${profile.value?.name}/views/${idOf(name)}`;
  const [title, view] = await Promise.all([
    api.catalog.getTitle({ name }, { signal }),
    api.history.getView({ name: viewName }, { signal }).catch((error: unknown) => {
      if (isCode(error, Code.NotFound)) return undefined;
      throw error;
    }),
  ]);
  if (!title.title) throw new Error("The server answered without a title");
  return { title: title.title, view: view?.view };
}

export function TitlePage({ id, play }: { id: string; play: boolean }) {
  const { value, error, reload } = useLoad((signal) => load(`titles/${id}`, signal), [id, profile.value?.name]);
  const [playing, setPlaying] = useState<{ fromS: number | undefined } | undefined>(play ? { fromS: undefined } : undefined);
  const changing =
    value && ([Title_State.PROCESSING, Title_State.PLAYABLE].includes(value.title.state) || value.title.replacement?.state === Replacement_State.PROCESSING);
  useEffect(() => {
    if (!changing) return;
    const timer = setInterval(reload, REFRESH_MS);
    return () => clearInterval(timer);
  }, [changing]);
  const leave = () => {
    setPlaying(undefined);
    if (play) go(`/titles/${id}`, { replace: true });
    reload();
  };
  if (!value) return error ? <ErrorNote error={error} retry={reload} /> : <Loading what="the film" />;
  const { title } = value;
  return (
    <article class="title-page">
      {playing && profile.value ? (
        <LazyPlayer title={title} profile={profile.value.name} fromS={playing.fromS} onNext={(next) => go(`/${next}?play`)} onLeave={leave} />
      ) : (
        <Stage shown={value} onPlay={(fromS) => setPlaying({ fromS })} />
      )}
      <div class="title-text">
        <Heading text={title.displayName}>
          <span dir="auto">{title.displayName}</span>
        </Heading>
        {title.place && (
          <p>
            <a href={`#/${title.place.episode.split("/").slice(0, 2).join("/")}`} dir="auto">
              {title.place.seriesDisplayName}
            </a>{" "}
            <span class="dim">
              Season {title.place.seasonNumber}, episode {title.place.episodeNumber}
            </span>
          </p>
        )}
        <Facts title={title} />
        {title.description && (
          <p class="description" dir="auto">
            {title.description}
          </p>
        )}
        <TitleStateNote title={title} />
        <ReplacementNote title={title} />
        {titleNote(title) && <Badge tone="plain">{titleNote(title)}</Badge>}
        <div class="tools">
          <WatchButton subject={title.name} />
        </div>
        {isPublisher.value && (title.owner === session.value?.user || isOperator.value) && <TitleTools title={title} onChange={reload} />}
      </div>
    </article>
  );
}

function Facts({ title }: { title: Title }) {
  const facts = [title.releaseYear ? String(title.releaseYear) : "", title.duration ? length(seconds(title.duration)) : "", ...title.genres].filter(Boolean);
  return facts.length ? (
    <ul class="facts" aria-label="About the film">
      {facts.map((fact) => (
        <li key={fact}>{fact}</li>
      ))}
    </ul>
  ) : null;
}

function TitleStateNote({ title }: { title: Title }) {
  switch (title.state) {
    case Title_State.CREATED:
      return <Badge tone="plain">No film was uploaded yet</Badge>;
    case Title_State.PROCESSING:
      return <Badge tone="busy">Being processed; it can be watched in a moment</Badge>;
    case Title_State.PLAYABLE:
      return <Badge tone="busy">Can be watched already; the rest is still being encoded</Badge>;
    case Title_State.FAILED:
      return <ErrorNote error={title.error ? sentenceOfStatus(title.error) : "Processing failed."} />;
    default:
      return null;
  }
}

/** Whether its rights let the viewer watch it now; its owner always may. */
const mayWatch = (title: Title): boolean =>
  title.availability === undefined || title.availability.state === Availability_State.AVAILABLE || title.owner === session.value?.user || isOperator.value;

/** The title before it plays: its cover and where to begin. */
function Stage({ shown: { title, view }, onPlay }: { shown: Shown; onPlay: (fromS: number | undefined) => void }) {
  const at = seconds(view?.position);
  const total = seconds(title.duration ?? view?.titleDuration);
  const begun = at > 0 && total > 0 && at < total - Math.min(30, total * 0.05);
  const playable = isReady(title.state) && mayWatch(title);
  useEffect(() => {
    // Half a second between the click and the first frame; what fails here is tried again then.
    if (playable) void loadPlayer().catch(() => undefined);
  }, [playable]);
  return (
    <div class="stage">
      <Art name={title.name} displayName={title.displayName} artwork={title.artwork} large />
      {playable && (
        <div class="stage-actions">
          <button type="button" class="button primary big" onClick={() => onPlay(undefined)}>
            <Icon name="play" /> {begun ? `Resume at ${clock(at)}` : "Play"}
          </button>
          {begun && (
            <button type="button" class="button big glass" onClick={() => onPlay(0)}>
              From the beginning
            </button>
          )}
        </div>
      )}
      {begun && <Progress thin value={at / total} label="Watched" />}
    </div>
  );
}

let loaded: ComponentType<PlayerProps> | undefined;

const loadPlayer = async (): Promise<ComponentType<PlayerProps>> => (loaded ??= (await import("../player/player")).Player);

/** The player with its engine comes over the wire when a film is looked at, and is there when somebody watches. */
function LazyPlayer(props: PlayerProps) {
  const [player, setPlayer] = useState(loaded && { View: loaded });
  const [error, setError] = useState<unknown>(undefined);
  useEffect(() => {
    if (!player) loadPlayer().then((View) => setPlayer({ View }), () => setError("The player could not be loaded. Reload the page."));
  }, []);
  if (error) return <ErrorNote error={error} />;
  return player ? <player.View {...props} /> : <div class="player"><span class="spinner large" role="status" aria-label="Loading the player" /></div>;
}
