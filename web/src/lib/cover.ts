/** What a title without a poster looks like: always the same for the same title. */
export interface Cover {
  readonly initials: string;
  /** Two hues, 0 to 360. */
  readonly hue: number;
  readonly hue2: number;
  readonly motif: "arcs" | "sun" | "bars" | "dots" | "peaks";
  /** Numbers from 0 to 1 that place the parts of the motif. */
  readonly dice: readonly number[];
}

const MOTIFS = ["arcs", "sun", "bars", "dots", "peaks"] as const;

export function coverOf(name: string, displayName: string): Cover {
  const next = random(hash(name));
  const hue = Math.floor(next() * 360);
  const motif = MOTIFS[Math.floor(next() * MOTIFS.length)] ?? "arcs";
  const hue2 = (hue + 30 + Math.floor(next() * 60)) % 360;
  return { initials: initials(displayName), hue, hue2, motif, dice: Array.from({ length: 12 }, next) };
}

/** First letters of the first two words that count, in any script. */
export function initials(text: string): string {
  const words = text.match(/[\p{L}\p{N}\p{Extended_Pictographic}][\p{L}\p{N}\p{M}'’]*/gu) ?? [];
  const telling = words.filter((word) => !/^(a|an|the|der|die|das|le|la|les|el|il)$/i.test(word));
  const chosen = (telling.length ? telling : words).slice(0, 2);
  return chosen.map((word) => [...word][0]?.toLocaleUpperCase() ?? "").join("");
}

/** FNV-1a, 32 bit. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/** mulberry32: a small generator that a seed repeats exactly. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
