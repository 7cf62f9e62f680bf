/** A stretch of a title in seconds: start inclusive, end exclusive. */
export type Interval = readonly [start: number, end: number];

/** Stretches closer than this are one: a browser reports times in microseconds. */
const TOUCH_S = 0.001;

/** Union of stretches: ascending, without overlaps; empty ones are left out. */
export function union(intervals: readonly Interval[]): Interval[] {
  const merged: [number, number][] = [];
  for (const [start, end] of [...intervals].sort((a, b) => a[0] - b[0])) {
    if (end <= start) continue;
    const last = merged.at(-1);
    if (last && start <= last[1] + TOUCH_S) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

/** How much longer than the wall clock a stretch may be: timers are late, media clocks are not. */
const SLACK_S = 0.75;

/**
 * Collects what was really played. Told the media time again and again while it plays, it joins two sightings only when
 * the wall clock between them allows it, so that a jump nobody announced is never counted as watched.
 */
export class WatchedTracker {
  #done: Interval[] = [];
  #run: { start: number; end: number; wallS: number } | undefined;

  /** Playing, at media time `timeS` and speed `rate`, seen at `wallS` (any monotonic clock, in seconds). */
  playing(timeS: number, rate: number, wallS: number): void {
    const run = this.#run;
    const step = run ? timeS - run.end : -1;
    if (run && step >= 0 && step <= (wallS - run.wallS) * rate + SLACK_S) {
      run.end = timeS;
      run.wallS = wallS;
      return;
    }
    this.stopped();
    this.#run = { start: timeS, end: timeS, wallS };
  }

  /** Paused, seeking, stalled or ended: what was seen last is the end of the stretch. */
  stopped(): void {
    if (this.#run) this.#done = union([...this.#done, [this.#run.start, this.#run.end]]);
    this.#run = undefined;
  }

  /** What was played and not yet acknowledged. */
  pending(): Interval[] {
    const running: Interval[] = this.#run ? [[this.#run.start, this.#run.end]] : [];
    return union([...this.#done, ...running]);
  }

  /** The server has these for good. */
  acknowledged(intervals: readonly Interval[]): void {
    const known = union(intervals);
    this.#done = subtract(this.#done, known);
    const run = this.#run;
    if (!run) return;
    const covering = known.find(([start, end]) => start <= run.start && run.start <= end);
    if (covering) run.start = Math.min(run.end, covering[1]);
  }
}

/** What of `intervals` lies outside `known`; both unions. */
function subtract(intervals: readonly Interval[], known: readonly Interval[]): Interval[] {
  return intervals.flatMap(([start, end]) => {
    const left: Interval[] = [];
    let from = start;
    for (const [a, b] of known) {
      if (b <= from || a >= end) continue;
      if (a > from) left.push([from, a]);
      from = Math.max(from, b);
    }
    if (from < end) left.push([from, end]);
    return left;
  });
}
