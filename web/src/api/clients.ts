import { signal } from "@preact/signals";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { BillingService } from "kino-stubs/kino/billing/v1/billing_pb.js";
import { CatalogService } from "kino-stubs/kino/catalog/v1/catalog_pb.js";
import { SeriesService } from "kino-stubs/kino/catalog/v1/series_pb.js";
import { WatchlistService } from "kino-stubs/kino/catalog/v1/watchlist_pb.js";
import { HistoryService } from "kino-stubs/kino/history/v1/history_pb.js";
import { IdentityService } from "kino-stubs/kino/identity/v1/identity_pb.js";
import { IngestService } from "kino-stubs/kino/ingest/v1/ingest_pb.js";
import { EdgeRegistryService } from "kino-stubs/kino/playback/v1/edges_pb.js";
import { PlaybackService } from "kino-stubs/kino/playback/v1/playback_pb.js";
import { SchedulerService } from "kino-stubs/kino/scheduler/v1/scheduler_pb.js";
import { SearchService } from "kino-stubs/kino/search/v1/search_pb.js";
import { isCode } from "./errors";
import { SESSION_KEY, SessionKeeper, exclusiveAcrossTabs } from "./session";

/** Deadline of a call unless it says otherwise. */
const TIMEOUT_MS = 30_000;
/** For streams that last as long as they are wanted. */
export const NO_TIMEOUT = { timeoutMs: 0 } as const;
const MAX_TRIES = 3;
/** Chromium sends a Blob ten times faster than the same bytes as an array; not worth its detour for small bodies. */
const BLOB_FROM_BYTES = 32_768;

const gatewayFetch: typeof fetch = async (url, init) => {
  const body = init?.body;
  const options = body instanceof Uint8Array && body.length > BLOB_FROM_BYTES ? { ...init, body: new Blob([body as BlobPart]) } : init;
  try {
    return await fetch(url, options);
  } catch (error) {
    // The browser's word for "no connection" is a TypeError without a reason.
    if (error instanceof TypeError) throw new ConnectError("the gateway can't be reached", Code.Unavailable);
    throw error;
  }
};

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats what certainly wasn't done. Creations carry a request id, so even a doubtful repetition has one effect. */
const retryUnavailable: Interceptor = (next) => async (request) => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      if (request.stream || attempt === MAX_TRIES || request.signal.aborted || !isCode(error, Code.Unavailable)) throw error;
      await pause(250 * 3 ** (attempt - 1) * (0.5 + Math.random()));
    }
  }
};

const withToken: Interceptor = (next) => async (request) => {
  const token = await keeper.accessToken();
  if (!token) return next(request);
  request.header.set("authorization", `Bearer ${token}`);
  try {
    return await next(request);
  } catch (error) {
    const fresh = isCode(error, Code.Unauthenticated) ? await keeper.replace(token) : undefined;
    if (!fresh) throw error;
    request.header.set("authorization", `Bearer ${fresh}`);
    return next(request);
  }
};

const options = { baseUrl: location.origin, fetch: gatewayFetch, defaultTimeoutMs: TIMEOUT_MS };
const open = createGrpcWebTransport({ ...options, interceptors: [retryUnavailable] });
const signed = createGrpcWebTransport({ ...options, interceptors: [retryUnavailable, withToken] });

/** Calls that need no token: signing in and out, and those whose credential is the lease they carry. */
export const publicApi = {
  identity: createClient(IdentityService, open),
  playback: createClient(PlaybackService, open),
  history: createClient(HistoryService, open),
};

/** Calls of the signed-in user. */
export const api = {
  billing: createClient(BillingService, signed),
  catalog: createClient(CatalogService, signed),
  edges: createClient(EdgeRegistryService, signed),
  history: createClient(HistoryService, signed),
  identity: createClient(IdentityService, signed),
  ingest: createClient(IngestService, signed),
  playback: createClient(PlaybackService, signed),
  scheduler: createClient(SchedulerService, signed),
  search: createClient(SearchService, signed),
  series: createClient(SeriesService, signed),
  watchlist: createClient(WatchlistService, signed),
};

async function exchange(refreshToken: string) {
  try {
    return (await publicApi.identity.refreshSession({ refreshToken })).session;
  } catch (error) {
    if (isCode(error, Code.Unauthenticated, Code.PermissionDenied, Code.NotFound, Code.InvalidArgument)) return undefined;
    throw error;
  }
}

export const keeper = new SessionKeeper(
  localStorage,
  exclusiveAcrossTabs(SESSION_KEY),
  exchange,
  () => Date.now(),
  () => (session.value = keeper.current()),
);

/** The session of all tabs; undefined when signed out. */
export const session = signal(keeper.current());
addEventListener("storage", (event) => {
  if (event.key === SESSION_KEY) session.value = keeper.current();
});
