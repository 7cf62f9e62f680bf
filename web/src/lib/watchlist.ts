import { effect, signal } from "@preact/signals";
import type { WatchlistEntry } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { idOf, profile } from "../state";
import { once } from "./request_id";

const PAGE_SIZE = 200;

/** What the profile wants to watch, last added first; undefined until known. */
export const watchlist = signal<WatchlistEntry[] | undefined>(undefined);
/** Why it could not be read. */
export const watchlistError = signal<unknown>(undefined);

export const isWatched = (subject: string): boolean => watchlist.value?.some((entry) => entry.subject === subject) ?? false;

export async function loadWatchlist(): Promise<void> {
  const parent = profile.value?.name;
  if (!parent) return;
  try {
    const entries: WatchlistEntry[] = [];
    for (let pageToken = ""; ; ) {
      const page = await api.watchlist.listWatchlist({ parent, pageSize: PAGE_SIZE, pageToken });
      entries.push(...page.entries);
      pageToken = page.nextPageToken;
      if (!pageToken) break;
    }
    if (profile.value?.name === parent) [watchlist.value, watchlistError.value] = [entries, undefined];
  } catch (error) {
    watchlistError.value = error;
  }
}

/** Puts a title or series on the list, or takes it off. */
export async function setWatched(subject: string, wanted: boolean): Promise<void> {
  const parent = profile.value?.name ?? "";
  if (wanted) {
    await once(`watch:${parent}:${subject}`, (requestId) => api.watchlist.createWatchlistEntry({ parent, entry: { subject }, requestId }));
  } else await api.watchlist.deleteWatchlistEntry({ name: `${parent}/watchlist/${idOf(subject)}` });
  await loadWatchlist();
}

/** Reads the list of whoever watches now. */
export function followWatchlist(): void {
  let known: string | undefined;
  effect(() => {
    const name = profile.value?.name;
    if (name === known) return;
    known = name;
    watchlist.value = undefined;
    watchlistError.value = undefined;
    void loadWatchlist();
  });
}
