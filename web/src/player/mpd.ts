/**
 * Until when a manifest offers both pictures and sound, in seconds. Not the player's seek range, which reaches to the end
 * of the track that is furthest: sound is encoded long before the pictures.
 */
export function readyEndS(mpd: Document): number {
  const sets = [...mpd.getElementsByTagName("AdaptationSet")];
  const ends = new Map<string, number>();
  for (const set of sets) {
    const kind = set.getAttribute("contentType") ?? "";
    const furthest = Math.max(0, ...[...set.getElementsByTagName("SegmentTemplate")].map(templateEndS));
    ends.set(kind, Math.max(ends.get(kind) ?? 0, furthest));
  }
  return ends.size ? Math.min(...ends.values()) : 0;
}

/** End of a `SegmentTimeline` (ISO/IEC 23009-1, 5.3.9.6). */
function templateEndS(template: Element): number {
  let end = 0;
  for (const run of template.getElementsByTagName("S")) {
    const [start, duration, repeats] = ["t", "d", "r"].map((name) => run.getAttribute(name));
    end = Number(start ?? end) + Number(duration) * (Number(repeats ?? 0) + 1);
  }
  return end / Number(template.getAttribute("timescale") ?? 1);
}
