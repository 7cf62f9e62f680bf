/** Only this much of the past tells how fast it goes now. */
const WINDOW_MS = 10_000;

/** Speed and time left of something that counts up to a total. */
export class Meter {
  #marks: { atMs: number; bytes: number }[] = [];

  mark(bytes: number, atMs: number): void {
    this.#marks.push({ atMs, bytes });
    // One mark before the window stays: the speed is measured from it.
    while (this.#marks.length > 2 && this.#marks[1]!.atMs <= atMs - WINDOW_MS) this.#marks.shift();
  }

  /** Bytes per second; 0 until two marks are known. */
  get bytesPerSecond(): number {
    const [first, last] = [this.#marks[0], this.#marks.at(-1)];
    if (!first || !last || last.atMs <= first.atMs) return 0;
    return ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs);
  }

  /** Seconds until `total`; undefined while nothing moves. */
  secondsLeft(total: number): number | undefined {
    const speed = this.bytesPerSecond;
    const last = this.#marks.at(-1);
    return speed > 0 && last ? Math.max(0, total - last.bytes) / speed : undefined;
  }
}
