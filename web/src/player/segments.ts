import { Code, ConnectError } from "@connectrpc/connect";

/** Bytes of a segment as they come (`MediaChunk`). */
export interface Piece {
  readonly offsetBytes: bigint;
  readonly last: boolean;
  readonly data: Uint8Array;
}

/** Opens a read of one segment from a byte on; the stream may break at any time. */
export type OpenRead = (firstOffsetBytes: number, signal: AbortSignal) => AsyncIterable<Piece>;

export interface ReadOptions {
  readonly signal: AbortSignal;
  /** Told about every new stretch of bytes, for bandwidth estimation. */
  readonly onBytes?: (count: number) => void;
  /** Waits before going on after the nth break in a row without a byte between; rejects when aborted. */
  readonly wait?: (failures: number, signal: AbortSignal) => Promise<void>;
}

/** Breaks in a row, without a byte between them, after which a read is given up. */
export const MAX_FAILURES = 6;
/** Larger than any segment of ten seconds; a broken server must not fill the memory. */
const MAX_SEGMENT_BYTES = 256 * 1024 * 1024;

/** Breaks that say nothing about the request: a lost connection, a restarting server. */
const BREAKS = new Set([Code.Unavailable, Code.Unknown, Code.Internal, Code.Aborted, Code.DeadlineExceeded]);

/**
 * Reads one segment whole. After a break it goes on at the byte it lacks. Throws what the server said when that is final,
 * or the last break when too many follow each other.
 */
export async function readSegment(open: OpenRead, options: ReadOptions): Promise<Uint8Array<ArrayBuffer>> {
  const { signal, onBytes, wait = backOff } = options;
  const pieces: Uint8Array[] = [];
  let received = 0;
  for (let failures = 0; ; ) {
    try {
      for await (const piece of open(received, signal)) {
        const fresh = continuation(piece, received);
        received += fresh.length;
        if (received > MAX_SEGMENT_BYTES) throw new ConnectError("the segment does not end", Code.OutOfRange);
        if (fresh.length) {
          pieces.push(fresh);
          failures = 0;
          onBytes?.(fresh.length);
        }
        if (piece.last) return concat(pieces, received);
      }
      throw new ConnectError("the stream ended within a segment", Code.Unavailable);
    } catch (error) {
      if (signal.aborted || !BREAKS.has(ConnectError.from(error).code) || ++failures >= MAX_FAILURES) throw error;
      await wait(failures, signal);
    }
  }
}

/** The part of a piece that is new; a server may repeat some bytes but never leave a gap. */
function continuation(piece: Piece, received: number): Uint8Array {
  const skip = received - Number(piece.offsetBytes);
  if (skip < 0) throw new ConnectError("bytes of the segment are missing", Code.DataLoss);
  return skip ? piece.data.subarray(skip) : piece.data;
}

function concat(pieces: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function backOff(failures: number, signal: AbortSignal): Promise<void> {
  const ms = Math.min(4000, 250 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** What a URL of the manifest asks for: a manifest by file name, or a segment (-1: the init segment) of a rendition. */
export type Wanted =
  | { readonly kind: "manifest"; readonly file: string }
  | { readonly kind: "segment"; readonly rendition: string; readonly number: number };

/** Reads `kino://{playback}/…/{file}`; undefined for what no manifest of ours names. */
export function parseKinoUri(uri: string): { playback: string; wanted: Wanted } | undefined {
  const match = /^kino:\/\/([^/]+)\/(?:.*\/)?([^/?#]+)\/([^/?#]+)$/.exec(uri);
  if (!match) return undefined;
  const [, playback = "", folder = "", file = ""] = match;
  if (/^[a-z0-9-]+\.(mpd|m3u8)$/.test(file)) return { playback, wanted: { kind: "manifest", file } };
  const number = file === "init.mp4" ? -1 : Number(/^(\d{1,6})\.m4s$/.exec(file)?.[1] ?? NaN);
  if (Number.isNaN(number)) return undefined;
  return { playback, wanted: { kind: "segment", rendition: folder, number } };
}
