import type { Chapter, Extras, Storyboard } from "kino-stubs/kino/media/v1/media_pb.js";
import { seconds } from "../lib/time";

/** Where a file beside the media is. */
export const extraUrl = (leaseToken: string, file: string): string => `/v1/playback/${encodeURIComponent(leaseToken)}/extras/${file}`;

/** A tile of the storyboard: which sheet, and where on it. */
export interface Tile {
  readonly sheet: number;
  readonly x: number;
  readonly y: number;
}

/** The picture for a moment of the title. */
export function tileAt(board: Storyboard, timeS: number): Tile {
  const number = Math.max(0, Math.min(board.tileCount - 1, Math.floor(timeS / Math.max(0.001, seconds(board.interval)))));
  const perSheet = board.columns * board.rows;
  const inside = number % perSheet;
  return {
    sheet: Math.floor(number / perSheet),
    x: (inside % board.columns) * board.tileWidth,
    y: Math.floor(inside / board.columns) * board.tileHeight,
  };
}

/** The chapter of a moment. */
export const chapterAt = (extras: Extras | undefined, timeS: number): Chapter | undefined =>
  extras?.chapters.findLast((chapter) => seconds(chapter.startOffset) <= timeS + 0.001);

/** A language in the viewer's words: `de` → `German`. */
export function languageName(code: string): string {
  if (!code || code === "und") return "Unknown language";
  try {
    return new Intl.DisplayNames(undefined, { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}
