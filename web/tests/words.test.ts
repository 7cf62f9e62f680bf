import { create } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "kino-stubs/google/rpc/error_details_pb.js";
import { StatusSchema } from "kino-stubs/google/rpc/status_pb.js";
import { describe, expect, it } from "vitest";
import { reasonOf, sentenceOf, sentenceOfStatus } from "../src/api/errors";
import { coverOf, initials } from "../src/lib/cover";
import { renditionLabel } from "../src/lib/rendition";
import { parsePlace } from "../src/lib/place";
import { bytes, clock, duration, length, minorUnits, millis, seconds, spoken } from "../src/lib/time";
import { titleText } from "../src/lib/title_text";

const error = (reason: string, metadata: Record<string, string> = {}, message = "as the server says") =>
  new ConnectError(message, Code.FailedPrecondition, undefined, [{ desc: ErrorInfoSchema, value: { reason, domain: "kino", metadata } }]);

describe("sentenceOf", () => {
  it("says a known reason in words, with what the server knows of it", () => {
    expect(sentenceOf(error("WRONG_CREDENTIALS"))).toBe("The address or the password is wrong.");
    expect(sentenceOf(error("NOT_ENTITLED", { cause: "INVOICE_UNPAID" }))).toBe("Your first invoice is not paid yet. Watching starts once it is.");
    expect(sentenceOf(error("NOT_ENTITLED", { cause: "NEW_REASON" }))).toBe("A running subscription is needed to watch.");
    expect(sentenceOf(error("UPLOAD_TOO_LARGE", { limit_bytes: "5000000000" }))).toBe("The file is larger than the 5.0 GB allowed.");
  });

  it("falls back to the server's own sentence", () => {
    expect(sentenceOf(error("SOMETHING_NEW"))).toBe("as the server says.");
    expect(reasonOf(error("SOMETHING_NEW"))).toBe("SOMETHING_NEW");
  });

  it("names the field that is wrong", () => {
    const value = create(BadRequestSchema, { fieldViolations: [{ field: "email", description: "must be an address" }] });
    expect(sentenceOf(new ConnectError("x", Code.InvalidArgument, undefined, [{ desc: BadRequestSchema, value }]))).toBe("email: must be an address");
  });

  it("hides what the gateway or the browser says", () => {
    expect(sentenceOf(new ConnectError("upstream connect error or disconnect/reset", Code.Unavailable))).toBe(
      "The server can't be reached at the moment. Try again shortly.",
    );
    expect(reasonOf(new Error("x"))).toBe("");
  });

  it("reads a stored status the same way", () => {
    const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "SOURCE_IS_PLAYLIST" }))];
    expect(sentenceOfStatus(create(StatusSchema, { message: "m", details }))).toBe("This is a playlist, not a film: it only points to other files.");
    expect(sentenceOfStatus(create(StatusSchema, { message: "the encoder died" }))).toBe("the encoder died.");
  });
});

describe("times and amounts", () => {
  it("carries microseconds there and back", () => {
    expect([0, 33.4, 2.000001, 7200.999999].map((s) => seconds(duration(s)))).toEqual([0, 33.4, 2.000001, 7200.999999]);
    expect(duration(1.9999999)).toMatchObject({ seconds: 2n, nanos: 0 });
    expect(duration(-1)).toMatchObject({ seconds: 0n, nanos: 0 });
    expect(millis(timestampFromMs(1234567))).toBe(1234567);
  });

  it("writes them for the eye and for the ear", () => {
    expect([clock(0), clock(61.9), clock(3723), clock(Infinity)]).toEqual(["0:00", "1:01", "1:02:03", "0:00"]);
    expect([spoken(0), spoken(61), spoken(3600)]).toEqual(["0 seconds", "1 minute 1 second", "1 hour"]);
    expect([length(45), length(60), length(5400)]).toEqual(["45 s", "1 min", "1 h 30 min"]);
    expect([bytes(999), bytes(1500), bytes(25e6), bytes(3e15)]).toEqual(["999 B", "1.5 kB", "25 MB", "3000 TB"]);
  });

  it("counts money in whole minor units", () => {
    expect(["4.99", "4,9", "5", "0"].map((text) => minorUnits("EUR", text))).toEqual([499n, 490n, 500n, 0n]);
    expect(minorUnits("jpy", "500")).toBe(500n);
    for (const [currency, text] of [["EUR", "4.999"], ["JPY", "1.5"], ["EUR", "-1"], ["EUR", "1e3"]] as const) {
      expect(() => minorUnits(currency, text)).toThrow(RangeError);
    }
  });
});

describe("names", () => {
  it("makes initials of any script", () => {
    expect(["The Cabinet of Dr. Caligari", "M", "東京物語", "عروس النيل", "🎬 take", "…", "The"].map(initials)).toEqual(["CO", "M", "東", "عا", "🎬T", "", "T"]);
  });

  it("gives a title the same cover always, and others another", () => {
    expect(coverOf("titles/a", "A")).toEqual(coverOf("titles/a", "A"));
    expect(new Set(["a", "b", "c", "d"].map((id) => coverOf(`titles/${id}`, "A").hue)).size).toBeGreaterThan(1);
  });

  it("tells what a rendition is", () => {
    expect(["h264-720", "h264-720-2", "av1-480", "aac-128-eng-0", "opus-96-und-1", "weird"].map(renditionLabel)).toEqual([
      "H.264 720p",
      "H.264 720p (2)",
      "AV1 480p",
      "AAC 128 kbit/s, eng",
      "Opus 96 kbit/s",
      "weird",
    ]);
  });

  it("reads places, and wrong ones too", () => {
    const { path, query } = parsePlace("#/titles/x%20y?play=1");
    expect([path, query.get("play")]).toEqual([["titles", "x y"], "1"]);
    expect([parsePlace("").path, parsePlace("#/a/%E0%A4%A").path]).toEqual([[], ["a", "%E0%A4%A"]]);
  });

  it("reads a title's words as they are typed", () => {
    expect(titleText({ displayName: " A ", description: "", releaseYear: "1927", genres: "Drama, ,Noir,Drama" })).toEqual({
      displayName: "A",
      description: "",
      releaseYear: 1927,
      genres: ["Drama", "Noir"],
    });
  });
});
