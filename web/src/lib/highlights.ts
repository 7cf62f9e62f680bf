import { clock, duration, parseClock } from "./time";

/** A passage worth showing first, in seconds. */
export interface Span {
  readonly startS: number;
  readonly endS: number;
}

/** Reads `1:20-1:35, 10:00-10:20`. Throws a sentence on anything else. */
export function parseSpans(text: string): Span[] {
  return text
    .split(/[,;\n]/)
    .map((part) => part.trim())
    .filter(Boolean)
    .map((part) => {
      const ends = part.split(/\s*[-–]\s*/);
      if (ends.length !== 2) throw new RangeError(`“${part}” is no passage; write 1:20-1:35.`);
      const [startS, endS] = ends.map(parseClock) as [number, number];
      if (endS <= startS) throw new RangeError(`The passage ${clock(startS)}-${clock(endS)} ends before it begins.`);
      return { startS, endS };
    });
}

/** As the ingest takes it. */
export const highlightOf = ({ startS, endS }: Span) => ({ startOffset: duration(startS), endOffset: duration(endS) });
