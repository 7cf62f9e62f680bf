import shaka from "shaka-player/dist/shaka-player.dash-es2021.js";
import { Code, ConnectError } from "@connectrpc/connect";
import { isCode, reasonOf } from "../api/errors";
import { parseKinoUri, readSegment, type Piece, type Wanted } from "./segments";

/** Where the bytes of one playback come from. */
export interface MediaWire {
  manifest(file: string, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
  segment(rendition: string, number: number, firstOffsetBytes: number, signal: AbortSignal): AsyncIterable<Piece>;
  /** Told of every failed request that nobody cancelled, before the player hears of it. */
  failed(error: ConnectError): void;
}

const SCHEME = "kino";
const wires = new Map<string, MediaWire>();

/** Makes `kino://{id}/…` readable by Shaka until the returned function is called. */
export function openWire(id: string, wire: MediaWire): () => void {
  wires.set(id, wire);
  return () => wires.delete(id);
}

/** How often Shaka's bandwidth estimate is fed. */
const PROGRESS_MS = 100;

const plugin: shaka.extern.SchemePlugin = (uri, request, type, progressUpdated) => {
  const stop = new AbortController();
  const run = async (): Promise<shaka.extern.Response> => {
    const target = parseKinoUri(uri);
    const wire = target && wires.get(target.playback);
    if (!wire) throw failure(uri, type, new ConnectError("no such playback", Code.NotFound));
    try {
      const data = await load(wire, target.wanted, stop.signal, progressUpdated);
      return { uri, originalUri: uri, originalRequest: request, fromCache: false, headers: {}, status: 200, data: data.buffer };
    } catch (error) {
      if (stop.signal.aborted) throw aborted(uri, type);
      wire.failed(ConnectError.from(error));
      throw failure(uri, type, ConnectError.from(error));
    }
  };
  return new shaka.util.AbortableOperation(run(), async () => stop.abort());
};

async function load(
  wire: MediaWire,
  wanted: Wanted,
  signal: AbortSignal,
  progressUpdated: shaka.extern.ProgressUpdated,
): Promise<Uint8Array<ArrayBuffer>> {
  if (wanted.kind === "manifest") return wire.manifest(wanted.file, signal);
  let since = performance.now();
  let waiting = 0;
  const tell = () => {
    const now = performance.now();
    progressUpdated(now - since, waiting, 0);
    since = now;
    waiting = 0;
  };
  const data = await readSegment((first, signal) => wire.segment(wanted.rendition, wanted.number, first, signal), {
    signal,
    onBytes: (count) => {
      waiting += count;
      if (performance.now() - since >= PROGRESS_MS) tell();
    },
  });
  if (waiting) tell();
  return data;
}

const E = shaka.util.Error;
const TEMPORARY = [Code.Unavailable, Code.Unknown, Code.Internal, Code.DeadlineExceeded, Code.Aborted];

const aborted = (uri: string, type: shaka.net.NetworkingEngine.RequestType) =>
  new E(E.Severity.RECOVERABLE, E.Category.PLAYER, E.Code.OPERATION_ABORTED, uri, type);

function failure(uri: string, type: shaka.net.NetworkingEngine.RequestType, error: ConnectError): shaka.util.Error {
  const temporary = isCode(error, ...TEMPORARY) || reasonOf(error) === "SEGMENT_NOT_READY";
  const severity = temporary ? E.Severity.RECOVERABLE : E.Severity.CRITICAL;
  return new E(severity, E.Category.NETWORK, E.Code.HTTP_ERROR, uri, error.rawMessage, type);
}

shaka.polyfill.installAll();
shaka.net.NetworkingEngine.registerScheme(SCHEME, plugin, shaka.net.NetworkingEngine.PluginPriority.APPLICATION, true);

export { shaka };
