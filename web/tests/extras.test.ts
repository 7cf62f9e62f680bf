import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { ExtrasSchema, StoryboardSchema } from "kino-stubs/kino/media/v1/media_pb.js";
import { duration, parseClock } from "../src/lib/time";
import { parseSpans } from "../src/lib/highlights";
import { formOf, windowsOf } from "../src/lib/rights";
import { chapterAt, extraUrl, languageName, tileAt } from "../src/player/extras";

const board = create(StoryboardSchema, { tileWidth: 160, tileHeight: 90, columns: 10, rows: 10, interval: duration(2), tileCount: 105 });

describe("the storyboard", () => {
  test.each([
    [0, { sheet: 0, x: 0, y: 0 }],
    [1.9, { sheet: 0, x: 0, y: 0 }],
    [22, { sheet: 0, x: 160, y: 90 }],
    [200, { sheet: 1, x: 0, y: 0 }],
    [9999, { sheet: 1, x: 640, y: 0 }],
  ])("shows the tile of the moment %d", (timeS, tile) => expect(tileAt(board, timeS)).toEqual(tile));

  test("comes from beside the media, by the lease", () => expect(extraUrl("a/b", "storyboard-0.jpg")).toBe("/v1/playback/a%2Fb/extras/storyboard-0.jpg"));
});

test("a chapter lasts until the next begins", () => {
  const chapters = [0, 8].map((s) => ({ startOffset: duration(s), endOffset: duration(s + 8), name: `from ${s}` }));
  const extras = create(ExtrasSchema, { chapters });
  expect([0, 7.9, 8, 99].map((timeS) => chapterAt(extras, timeS)?.name)).toEqual(["from 0", "from 0", "from 8", "from 8"]);
  expect(chapterAt(undefined, 1)).toBeUndefined();
});

test.each([["de", "German"], ["und", "Unknown language"], ["x!", "x!"]])("the language %s is called %s", (code, name) => expect(languageName(code)).toBe(name));

test.each([["75", 75], ["1:15", 75], ["1:02:03.5", 3723.5]])("%s is a time of %d s", (text, seconds) => expect(parseClock(text)).toBe(seconds));

test.each(["", "1:", "a", "1:2:3:4", "-1"])("%j is no time", (text) => expect(() => parseClock(text)).toThrow(RangeError));

test("rights are typed as people write them and come back the same", () => {
  const form = { regions: "de, at CH,de", start: "2026-05-03T20:15", end: "" };
  const [window] = windowsOf([form]);
  expect(window?.regionCodes).toEqual(["DE", "AT", "CH"]);
  expect(window?.endTime).toBeUndefined();
  expect(formOf(window!)).toEqual({ regions: "DE, AT, CH", start: "2026-05-03T20:15", end: "" });
});

describe("highlights", () => {
  test("are typed as passages", () =>
    expect(parseSpans("1:20-1:35, 10:00 – 10:20.5")).toEqual([{ startS: 80, endS: 95 }, { startS: 600, endS: 620.5 }]));
  test("may be none", () => expect(parseSpans(" ")).toEqual([]));
  test.each(["1:20", "1:30-1:20", "a-b", "1-2-3"])("%s is none", (text) => expect(() => parseSpans(text)).toThrow(RangeError));
});
