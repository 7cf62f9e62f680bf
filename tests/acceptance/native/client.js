// Plays a title through the gateway as a native client does: gRPC over cleartext HTTP/2, stubs from the contracts.
// One JSON object on the command line says what to play; one on standard output says what came.
import { randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import { finished } from "node:stream/promises";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema } from "kino-stubs/google/rpc/error_details_pb.js";
import { IdentityService } from "kino-stubs/kino/identity/v1/identity_pb.js";
import { VideoCodec } from "kino-stubs/kino/media/v1/media_pb.js";
import { PlaybackService } from "kino-stubs/kino/playback/v1/playback_pb.js";
import { PlayEnd_Reason, Track } from "kino-stubs/kino/playback/v1/resources_pb.js";

import { countSamples } from "./boxes.js";
import { playSteadily } from "./steady.js";

/**
 * @typedef {import("kino-stubs/kino/playback/v1/resources_pb.js").PlayHeader} PlayHeader
 * @typedef {import("@bufbuild/protobuf/wkt").Duration} Duration
 * @typedef {{
 *   gateway: string, email: string, password: string, title: string, codec: "H264" | "AV1", out: string,
 *   offset_ms?: number, max_height?: number, segment_count?: number,
 * }} Wish
 */

/** @param {Wish} wish */
async function play(wish) {
  const sessionManager = new Http2SessionManager(wish.gateway);
  const transport = createGrpcTransport({ baseUrl: wish.gateway, sessionManager });
  try {
    const { lease, edges } = await startPlayback(transport, wish);
    const playback = createClient(PlaybackService, transport);
    try {
      return { edges, ...(await receive(playSteadily([...edges, wish.gateway], request(wish, lease)), wish.out)) };
    } finally {
      await playback.endPlayback({ leaseToken: lease });
    }
  } finally {
    sessionManager.abort();
  }
}

/**
 * Signs in and takes a lease for the account's first profile.
 * @param {import("@connectrpc/connect").Transport} transport
 * @param {Wish} wish
 * @returns {Promise<{ lease: string, edges: string[] }>} the lease's token, and the edges to stream from
 */
async function startPlayback(transport, { email, password, title }) {
  const identity = createClient(IdentityService, transport);
  const { session } = await identity.signIn({ email, password });
  if (!session) throw new Error("SignIn answered without a session");
  const headers = { authorization: `Bearer ${session.accessToken}` };
  const { profiles } = await identity.listProfiles({ parent: session.user }, { headers });
  const { lease, edgeAddresses } = await createClient(PlaybackService, transport).startPlayback(
    { title, profile: profiles[0]?.name ?? "", device: "native client", requestId: randomUUID() },
    { headers },
  );
  if (!lease) throw new Error("StartPlayback answered without a lease");
  return { lease: lease.token, edges: edgeAddresses };
}

/**
 * @param {Wish} wish
 * @param {string} leaseToken
 */
function request({ codec, offset_ms, max_height = 0, segment_count = 0 }, leaseToken) {
  return {
    leaseToken,
    videoCodec: VideoCodec[codec],
    maxHeight: max_height,
    segmentCount: segment_count,
    ...(offset_ms === undefined ? {} : { offset: durationFromMs(offset_ms) }),
  };
}

/**
 * Writes the stream, as it comes, as one fragmented MP4, and counts what each track brought.
 * @param {AsyncIterable<import("kino-stubs/kino/playback/v1/playback_pb.js").PlayResponse>} stream
 * @param {string} out
 */
async function receive(stream, out) {
  const file = createWriteStream(out);
  /** @type {Record<number, Buffer[]>} */
  const tracks = { [Track.VIDEO]: [], [Track.AUDIO]: [] };
  /** @type {PlayHeader[]} */
  const headers = [];
  let end = null;
  for await (const { message } of stream) {
    if (end !== null) throw new Error("a message came after the end");
    if (message.case === "header") {
      headers.push(message.value);
      file.write(message.value.combinedInit);
    } else if (message.case === "media") {
      if (headers.length === 0) throw new Error("media came before the header");
      tracks[message.value.track]?.push(Buffer.from(message.value.data));
      file.write(message.value.data);
    } else if (message.case === "end") {
      end = { reason: PlayEnd_Reason[message.value.reason], next_offset_ns: nanoseconds(message.value.nextOffset) };
    }
  }
  await finished(file.end());
  return { headers: headers.map(describe), end, video: tally(tracks[Track.VIDEO]), audio: tally(tracks[Track.AUDIO]) };
}

/** @param {PlayHeader} header */
function describe(header) {
  return {
    video: header.video?.renditionId,
    audio: header.audio?.renditionId,
    segment_number: header.segmentNumber,
    segment_start_ns: nanoseconds(header.segmentStart),
    media_start_ns: nanoseconds(header.mediaStart),
    offset_ns: nanoseconds(header.offset),
    trim_ns: nanoseconds(header.trim),
    trim_frame_count: header.trimFrameCount,
    frame_number: Number(header.frameNumber),
  };
}

/** @param {Buffer[] | undefined} pieces */
function tally(pieces = []) {
  const bytes = Buffer.concat(pieces);
  const { fragments, samples, firstDecodeTicks } = countSamples(bytes);
  return { messages: pieces.length, bytes: bytes.length, fragments, samples, first_decode_ticks: Number(firstDecodeTicks) };
}

/**
 * Nanoseconds as a number: exact up to 104 days.
 * @param {Duration | undefined} duration
 */
function nanoseconds(duration) {
  return duration ? Number(duration.seconds) * 1_000_000_000 + duration.nanos : null;
}

try {
  const report = await play(JSON.parse(process.argv[2] ?? "{}"));
  console.log(JSON.stringify(report));
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? null;
  console.log(JSON.stringify({ error: { code: Code[error.code], reason, message: error.rawMessage } }));
  process.exitCode = 1;
}
