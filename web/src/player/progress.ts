import { WatchedTracker, type Interval } from "../lib/intervals";

/** How far a playback is, as sent to the history. */
export interface Report {
  readonly sequence: number;
  readonly positionS: number;
  readonly intervals: readonly Interval[];
}

/** The contract takes so many stretches in one report. */
export const MAX_INTERVALS = 100;

/**
 * Reports how far a playback is. What was watched goes again with every report until one of them is acknowledged, so a
 * lost report loses nothing; the history takes them in any order.
 */
export class ProgressReporter {
  readonly tracker = new WatchedTracker();
  #sequence = 0;
  #inFlight: Promise<void> | undefined;
  #positionS = 0;
  #again = false;

  constructor(private readonly send: (report: Report) => Promise<void>) {}

  /** A report of this moment, numbered; for a caller that sends it by itself. */
  next(positionS: number): Report {
    this.#positionS = positionS;
    return { sequence: ++this.#sequence, positionS, intervals: this.tracker.pending().slice(0, MAX_INTERVALS) };
  }

  /** Reports in the background. One report is on its way at a time; meanwhile only the newest position waits. */
  report(positionS: number): Promise<void> {
    this.#positionS = positionS;
    this.#again = true;
    this.#inFlight ??= this.#drain().finally(() => (this.#inFlight = undefined));
    return this.#inFlight;
  }

  async #drain(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      const report = this.next(this.#positionS);
      try {
        await this.send(report);
        this.tracker.acknowledged(report.intervals);
      } catch {
        // Kept: the next report carries it.
        return;
      }
    }
  }
}

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

const UNSENT = "kino.unsent.";

/** Reports that could not be sent, one for each playback: the newest holds everything. They are sent at the next start. */
export class UnsentReports {
  constructor(private readonly store: Store) {}

  put(lease: string, json: string): void {
    this.store.setItem(UNSENT + lease, json);
  }

  drop(lease: string): void {
    this.store.removeItem(UNSENT + lease);
  }

  /** Sends what lies here. `send` tells whether it is settled: taken, or refused for good. */
  async flush(send: (json: string) => Promise<boolean>): Promise<void> {
    const keys = Array.from({ length: this.store.length }, (_, i) => this.store.key(i) ?? "");
    for (const key of keys.filter((key) => key.startsWith(UNSENT))) {
      const json = this.store.getItem(key);
      if (json && (await send(json)) && this.store.getItem(key) === json) this.store.removeItem(key);
    }
  }
}
