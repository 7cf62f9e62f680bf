import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { MAX_FAILURES, parseKinoUri, readSegment, type OpenRead, type Piece } from "../src/player/segments";

const SEGMENT = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);

const piece = (from: number, to: number): Piece => ({ offsetBytes: BigInt(from), last: to === SEGMENT.length, data: SEGMENT.subarray(from, to) });

/** Streams the segment in pieces of 100 bytes; the nth read breaks after `breaks[n]` pieces. */
function breaking(breaks: readonly number[], error = () => new ConnectError("lost", Code.Unavailable)): { open: OpenRead; from: number[] } {
  const from: number[] = [];
  return {
    from,
    open: async function* (first) {
      const pieces = breaks[from.push(first) - 1] ?? Infinity;
      for (let at = first, n = 0; at < SEGMENT.length; at += 100, n++) {
        if (n === pieces) throw error();
        yield piece(at, Math.min(at + 100, SEGMENT.length));
      }
    },
  };
}

const options = () => ({ signal: new AbortController().signal, wait: async () => {} });

describe("readSegment", () => {
  it("gives the whole segment and counts its bytes", async () => {
    let bytes = 0;
    const { open, from } = breaking([]);
    expect(await readSegment(open, { ...options(), onBytes: (n) => (bytes += n) })).toEqual(SEGMENT);
    expect([bytes, from]).toEqual([1000, [0]]);
  });

  it("goes on after each break at the byte it lacks", async () => {
    const { open, from } = breaking([3, 0, 2]);
    expect(await readSegment(open, options())).toEqual(SEGMENT);
    expect(from).toEqual([0, 300, 300, 500]);
  });

  it("goes on when a stream ends in order but within the segment", async () => {
    let reads = 0;
    const open: OpenRead = async function* (first) {
      if (reads++ === 0) yield piece(0, 400);
      else yield piece(first, 1000);
    };
    expect(await readSegment(open, options())).toEqual(SEGMENT);
    expect(reads).toBe(2);
  });

  it("leaves out bytes that come again", async () => {
    const open: OpenRead = async function* () {
      yield piece(0, 600);
      yield piece(500, 1000);
    };
    expect(await readSegment(open, options())).toEqual(SEGMENT);
  });

  it("refuses a gap", async () => {
    const open: OpenRead = async function* () {
      yield piece(0, 100);
      yield piece(200, 1000);
    };
    await expect(readSegment(open, options())).rejects.toMatchObject({ code: Code.DataLoss });
  });

  it("gives up after too many breaks in a row, with the last one", async () => {
    const { open, from } = breaking(Array.from({ length: 99 }, () => 0));
    await expect(readSegment(open, options())).rejects.toMatchObject({ code: Code.Unavailable });
    expect(from).toHaveLength(MAX_FAILURES);
  });

  it("passes on at once what the server means", async () => {
    const { open, from } = breaking([1], () => new ConnectError("lost lease", Code.FailedPrecondition));
    await expect(readSegment(open, options())).rejects.toMatchObject({ code: Code.FailedPrecondition });
    expect(from).toEqual([0]);
  });

  it("stops for good when it is aborted", async () => {
    const stop = new AbortController();
    const { open, from } = breaking([2], () => {
      stop.abort();
      return new ConnectError("aborted", Code.Unavailable);
    });
    await expect(readSegment(open, { ...options(), signal: stop.signal })).rejects.toBeDefined();
    expect(from).toEqual([0]);
  });
});

describe("parseKinoUri", () => {
  it.each([
    ["kino://p1/manifests/manifest.mpd", { playback: "p1", wanted: { kind: "manifest", file: "manifest.mpd" } }],
    ["kino://p1/segments/h264-720/init.mp4", { playback: "p1", wanted: { kind: "segment", rendition: "h264-720", number: -1 } }],
    ["kino://p1/segments/aac-128-und-0/12.m4s", { playback: "p1", wanted: { kind: "segment", rendition: "aac-128-und-0", number: 12 } }],
    ["kino://p1/v1/playback/x/segments/av1-480/0.m4s", { playback: "p1", wanted: { kind: "segment", rendition: "av1-480", number: 0 } }],
  ])("reads %s", (uri, expected) => expect(parseKinoUri(uri)).toEqual(expected));

  it.each(["https://p1/manifests/manifest.mpd", "kino://p1/segments/h264-720/x.m4s", "kino://p1/manifest.mpd", "kino://p1/a/b.html"])(
    "knows nothing of %s",
    (uri) => expect(parseKinoUri(uri)).toBeUndefined(),
  );
});
