import { Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "../api/errors";

export interface Part {
  readonly offsetBytes: number;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly sha256: Uint8Array;
}

/** What sending parts needs from outside. */
export interface PartsPort {
  /** Reads and sums one part. */
  read(offsetBytes: number, endBytes: number): Promise<Part>;
  /** Sends a part; answers how many bytes are safe. */
  send(part: Part, signal: AbortSignal): Promise<number>;
  /** Asks how many bytes are safe. */
  received(signal: AbortSignal): Promise<number>;
  progress(receivedBytes: number): void;
  wait(failures: number, signal: AbortSignal): Promise<void>;
}

/** Failures in a row without progress after which sending stops; the upload itself stays and can be resumed. */
export const MAX_FAILURES = 8;

const TEMPORARY = new Set([Code.Unavailable, Code.DeadlineExceeded, Code.Unknown, Code.Internal, Code.Aborted]);
/** A part that arrived broken, or that the server counted otherwise: ask where it is and go on there. */
const RESYNC = new Set(["UPLOAD_OFFSET_MISMATCH", "UPLOAD_CHECKSUM_MISMATCH", "OUTCOME_UNKNOWN"]);

/** Sends a file from the byte the server lacks to its end, through lost connections. The next part is read meanwhile. */
export async function sendParts(sizeBytes: number, partSizeBytes: number, port: PartsPort, signal: AbortSignal): Promise<void> {
  let at = await port.received(signal);
  let ahead: { at: number; part: Promise<Part> } | undefined;
  const prepare = (offset: number): Promise<Part> => {
    const part = ahead?.at === offset ? ahead.part : port.read(offset, Math.min(offset + partSizeBytes, sizeBytes));
    ahead = undefined;
    return part;
  };
  for (let failures = 0; at < sizeBytes; ) {
    port.progress(at);
    const part = await prepare(at);
    signal.throwIfAborted();
    const next = at + part.data.length;
    if (next < sizeBytes) {
      ahead = { at: next, part: port.read(next, Math.min(next + partSizeBytes, sizeBytes)) };
      // Its failure is told when the part's turn comes.
      ahead.part.catch(() => undefined);
    }
    try {
      const received = await port.send(part, signal);
      if (received <= at) throw new ConnectError("the part was not taken", Code.Aborted);
      at = received;
      failures = 0;
    } catch (error) {
      const temporary = TEMPORARY.has(ConnectError.from(error).code) || RESYNC.has(reasonOf(error));
      if (signal.aborted || !temporary || ++failures >= MAX_FAILURES) throw error;
      await port.wait(failures, signal);
      at = await port.received(signal).catch(() => at);
    }
  }
  port.progress(sizeBytes);
}
