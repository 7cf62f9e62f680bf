// A stream that no lost node interrupts: from the edges that StartPlayback named, in their order, then from the gateway.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { PlaybackService } from "kino-stubs/kino/playback/v1/playback_pb.js";
import { PlayEnd_Reason } from "kino-stubs/kino/playback/v1/resources_pb.js";

/**
 * @typedef {import("kino-stubs/kino/playback/v1/playback_pb.js").PlayResponse} PlayResponse
 * @typedef {import("kino-stubs/kino/playback/v1/resources_pb.js").PlayHeader} PlayHeader
 * @typedef {{ videoRenditionId: string, segmentNumber: number, track: number, offsetBytes: bigint }} Position
 * @typedef {{
 *   leaseToken: string, videoCodec?: number, maxHeight?: number, segmentCount?: number,
 *   offset?: import("@bufbuild/protobuf/wkt").Duration | undefined, resume?: Position,
 * }} Request
 */

/** A node that froze is noticed within 20 s, while a player still has something to show. */
const PINGS = { pingIntervalMs: 10_000, pingTimeoutMs: 10_000 };

/**
 * The messages of `Play`. Where one address fails, or its node goes down, the next one goes on with the byte that is
 * lacking; what the last one refuses is thrown.
 * @param {string[]} addresses
 * @param {Request} request
 * @returns {AsyncGenerator<PlayResponse>}
 */
export async function* playSteadily(addresses, request) {
  const reached = new Reached(request);
  for (const [index, address] of addresses.entries()) {
    const sessionManager = new Http2SessionManager(address, PINGS);
    const playback = createClient(PlaybackService, createGrpcTransport({ baseUrl: address, sessionManager }));
    try {
      for await (const response of playback.play(reached.rest())) {
        const { message } = response;
        if (message.case === "end" && message.value.reason === PlayEnd_Reason.MOVED) break;
        if (reached.take(response)) yield response;
        if (message.case === "end") return;
      }
    } catch (error) {
      if (index === addresses.length - 1) throw error;
    } finally {
      sessionManager.abort();
    }
  }
}

/** How far a stream has come. */
class Reached {
  /** @type {PlayHeader | undefined} */
  #header;
  /** @type {Position | undefined} */
  #lacking;
  #firstSegment = 0;

  /** @param {Request} request */
  constructor(request) {
    this.request = request;
  }

  /**
   * A message arrived; whether it is new. A header comes again when nothing came after it.
   * @param {PlayResponse} response
   */
  take({ message }) {
    if (message.case === "header") {
      if (this.#header && !this.#lacking) return false;
      if (!this.#header) this.#firstSegment = message.value.segmentNumber;
      this.#header = message.value;
    } else if (message.case === "media") {
      const { segmentNumber, track, offsetBytes, data } = message.value;
      const videoRenditionId = this.#header?.video?.renditionId ?? "";
      this.#lacking = { videoRenditionId, segmentNumber, track, offsetBytes: offsetBytes + BigInt(data.length) };
    }
    return true;
  }

  /**
   * The request for what is lacking.
   * @returns {Request}
   */
  rest() {
    if (!this.#header || !this.#lacking) return this.request;
    const { segmentCount = 0 } = this.request;
    const done = this.#lacking.segmentNumber - this.#firstSegment;
    return {
      ...this.request,
      offset: this.#header.offset,
      resume: this.#lacking,
      segmentCount: segmentCount && segmentCount - done,
    };
  }
}
