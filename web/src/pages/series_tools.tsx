import { useState } from "preact/hooks";
import type { Episode, Season, Series, Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api, session } from "../api/clients";
import { useAct, useLoad } from "../lib/load";
import { once } from "../lib/request_id";
import { go } from "../lib/router";
import { textOf, titleText, type TitleText } from "../lib/title_text";
import { isOperator } from "../state";
import { announce, Dialog, ErrorNote, Field, Select } from "../ui/basics";
import { Icon } from "../ui/icon";
import { TitleFields } from "../ui/title_fields";
import { PictureDialog } from "./picture";
import { seasonName, type WholeSeries } from "./series";

type Open = "edit" | "picture" | "season" | "episode" | "delete";

/** What the owner of a series can do with it. */
export function SeriesTools({ whole, onChange }: { whole: WholeSeries; onChange: () => void }) {
  const [open, setOpen] = useState<Open | undefined>(undefined);
  const close = () => setOpen(undefined);
  const done = () => (close(), onChange());
  const { series, seasons, episodes } = whole;
  const button = (what: Open, text: string) => (
    <button type="button" class={what === "delete" ? "button small danger" : "button small"} onClick={() => setOpen(what)}>
      {text}
    </button>
  );
  return (
    <>
      {seasons.length > 0 && button("episode", "Add episode")}
      {button("season", "Add season")}
      {button("edit", "Edit details")}
      {button("picture", "Picture")}
      {button("delete", "Delete")}
      {open === "edit" && <SeriesText series={series} onClose={close} onDone={done} />}
      {open === "picture" && <PictureDialog name={series.name} has={series.artwork !== undefined} titles={episodes.flatMap((one) => (one.details ? [one.details] : []))} onClose={close} onDone={done} />}
      {open === "season" && <NewSeason whole={whole} onClose={close} onDone={done} />}
      {open === "episode" && <NewEpisode whole={whole} onClose={close} onDone={done} />}
      {open === "delete" && <DeleteSeries series={series} onClose={close} />}
    </>
  );
}

interface DialogProps {
  readonly onClose: () => void;
  readonly onDone: () => void;
}

/** The words of a series; without one: of a new one. */
export function SeriesText({ series, onClose, onDone }: DialogProps & { series?: Series }) {
  const [text, setText] = useState<TitleText>(textOf(series));
  const { busy, error, run } = useAct();
  const save = async () => {
    const words = titleText(text);
    if (series) {
      const paths = ["display_name", "description", "release_year", "genres"];
      await api.series.updateSeries({ series: { name: series.name, etag: series.etag, ...words }, updateMask: { paths } });
      return;
    }
    const made = await once(`series:${JSON.stringify(words)}`, (requestId) => api.series.createSeries({ series: words, requestId }));
    go(`/${made.series?.name}`);
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!(await run(save))) return;
    announce("Saved");
    onDone();
  };
  return (
    <Dialog title={series ? "Edit details" : "New series"} onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <TitleFields value={text} onChange={setText} />
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Save
        </button>
      </form>
    </Dialog>
  );
}

function NewSeason({ whole, onClose, onDone }: DialogProps & { whole: WholeSeries }) {
  const parent = whole.series.name;
  const [number, setNumber] = useState(String(Math.max(0, ...whole.seasons.map((one) => one.number)) + 1));
  const [displayName, setName] = useState("");
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const season = { number: Number(number), displayName: displayName.trim() };
    const made = await run(() => once(`season:${parent}:${JSON.stringify(season)}`, (requestId) => api.series.createSeason({ parent, season, requestId })));
    if (made) onDone();
  };
  return (
    <Dialog title="Add a season" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <div class="two">
          <Field label="Number" type="number" required min={0} max={10000} hint="0: specials" value={number} onText={setNumber} />
          <Field label="Name" hint="May stay empty" maxLength={500} dir="auto" value={displayName} onText={setName} />
        </div>
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Add season
        </button>
      </form>
    </Dialog>
  );
}

/** The newest films that are no episodes yet and that one may change. */
async function loadFilms(signal: AbortSignal): Promise<Title[]> {
  const { titles } = await api.catalog.listTitles({ pageSize: 200, withoutEpisodes: true }, { signal });
  return titles.filter((title) => isOperator.value || title.owner === session.value?.user);
}

function NewEpisode({ whole, onClose, onDone }: DialogProps & { whole: WholeSeries }) {
  const films = useLoad(loadFilms, []);
  const [title, setTitle] = useState("");
  const [parent, setParent] = useState(whole.seasons.at(-1)?.name ?? "");
  const { busy, error, run } = useAct();
  const chosen = title || films.value?.[0]?.name || "";
  const submit = async (event: Event) => {
    event.preventDefault();
    const made = await run(() => once(`episode:${parent}:${chosen}`, (requestId) => api.series.createEpisode({ parent, episode: { title: chosen }, requestId })));
    if (made) onDone();
  };
  return (
    <Dialog title="Add an episode" onClose={onClose}>
      <ErrorNote error={films.error} retry={films.reload} />
      {films.value?.length === 0 ? (
        <p>
          All your films are episodes already. <a href="#/upload">Upload another one</a> first.
        </p>
      ) : (
        <form onSubmit={(event) => void submit(event)}>
          <Select label="Film" value={chosen} options={(films.value ?? []).map((one) => [one.name, one.displayName] as const)} onPick={setTitle} />
          <Select label="Season" value={parent} options={whole.seasons.map((one) => [one.name, seasonName(one)] as const)} onPick={setParent} />
          <ErrorNote error={error} />
          <button class="button primary" disabled={busy || !chosen}>
            Add as the last episode
          </button>
        </form>
      )}
    </Dialog>
  );
}

function DeleteSeries({ series, onClose }: { series: Series; onClose: () => void }) {
  const { busy, error, run } = useAct();
  const remove = async () => {
    if (await run(() => api.series.deleteSeries({ name: series.name }))) go("/", { replace: true });
  };
  return (
    <Dialog title="Delete this series?" onClose={onClose}>
      <p>
        <strong dir="auto">{series.displayName}</strong> and its seasons disappear. Its episodes stay, as films of their own.
      </p>
      <ErrorNote error={error} />
      <button type="button" class="button danger" disabled={busy} onClick={() => void remove()}>
        Delete series
      </button>
    </Dialog>
  );
}

interface EpisodeToolsProps {
  readonly episode: Episode;
  readonly season: Season;
  readonly all: readonly Episode[];
  readonly onChange: () => void;
}

/** Up, down, out. */
export function EpisodeTools({ episode, season, all, onChange }: EpisodeToolsProps) {
  const { busy, error, run } = useAct();
  const at = all.indexOf(episode);
  const called = episode.details?.displayName ?? "";
  const act = (what: () => Promise<unknown>) => () => void run(what).then((done) => done && onChange());
  const move = (by: 1 | -1) =>
    act(() => {
      const names = all.map((one) => one.name);
      names.splice(at, 1);
      names.splice(at + by, 0, episode.name);
      return api.series.reorderEpisodes({ parent: season.name, episodes: names });
    });
  return (
    <div class="episode-tools">
      <button type="button" class="button icon-only quiet" aria-label={`Move ${called} up`} disabled={busy || at === 0} onClick={move(-1)}>
        <Icon name="up" size={20} />
      </button>
      <button type="button" class="button icon-only quiet" aria-label={`Move ${called} down`} disabled={busy || at === all.length - 1} onClick={move(1)}>
        <Icon name="down" size={20} />
      </button>
      <button type="button" class="button icon-only quiet" aria-label={`Take ${called} out of the series`} disabled={busy} onClick={act(() => api.series.deleteEpisode({ name: episode.name }))}>
        <Icon name="close" size={20} />
      </button>
      <ErrorNote error={error} />
    </div>
  );
}
