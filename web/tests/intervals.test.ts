import { describe, expect, it } from "vitest";
import { WatchedTracker, union } from "../src/lib/intervals";

describe("union", () => {
  it("sorts, joins what overlaps or touches, and drops what is empty", () => {
    expect(union([[8, 9], [1, 3], [2, 5], [5, 6], [7, 7], [4, 4.5]])).toEqual([[1, 6], [8, 9]]);
  });

  it("does not change what it is given", () => {
    const given = [[3, 4], [1, 2]] as const;
    union(given);
    expect(given).toEqual([[3, 4], [1, 2]]);
  });
});

/** Plays `seconds` from `startS` in steps of a quarter second, as `timeupdate` does. */
function play(tracker: WatchedTracker, startS: number, seconds: number, wallS: number, rate = 1): void {
  for (let i = 0; i * 0.25 <= seconds; i++) tracker.playing(startS + i * 0.25 * rate, rate, wallS + i * 0.25);
}

describe("WatchedTracker", () => {
  it("counts what was played without a break as one stretch", () => {
    const tracker = new WatchedTracker();
    play(tracker, 10, 5, 100);
    expect(tracker.pending()).toEqual([[10, 15]]);
  });

  it("never counts a jump, announced or not", () => {
    const tracker = new WatchedTracker();
    play(tracker, 0, 2, 100);
    play(tracker, 60, 2, 102.25);
    tracker.stopped();
    play(tracker, 30, 1, 110);
    expect(tracker.pending()).toEqual([[0, 2], [30, 31], [60, 62]]);
  });

  it("counts double speed as played, but not more than the clock allows", () => {
    const tracker = new WatchedTracker();
    play(tracker, 0, 4, 100, 2);
    expect(tracker.pending()).toEqual([[0, 8]]);
    tracker.playing(8 + 2 * 1 + 0.8, 2, 105);
    tracker.stopped();
    expect(tracker.pending()).toEqual([[0, 8]]);
  });

  it("counts a late timer when the wall clock moved as far", () => {
    const tracker = new WatchedTracker();
    tracker.playing(0, 1, 100);
    tracker.playing(30, 1, 130);
    expect(tracker.pending()).toEqual([[0, 30]]);
  });

  it("starts anew after going back", () => {
    const tracker = new WatchedTracker();
    play(tracker, 20, 2, 100);
    play(tracker, 5, 1, 102.5);
    expect(tracker.pending()).toEqual([[5, 6], [20, 22]]);
  });

  it("forgets what was acknowledged and keeps what came after, while it plays on", () => {
    const tracker = new WatchedTracker();
    play(tracker, 0, 4, 100);
    const sent = tracker.pending();
    tracker.playing(4.25, 1, 104.25);
    tracker.acknowledged(sent);
    expect(tracker.pending()).toEqual([[4, 4.25]]);
  });

  it("keeps everything when nothing was acknowledged", () => {
    const tracker = new WatchedTracker();
    play(tracker, 0, 1, 100);
    tracker.stopped();
    play(tracker, 9, 1, 109);
    tracker.stopped();
    tracker.acknowledged([[9, 9.5]]);
    expect(tracker.pending()).toEqual([[0, 1], [9.5, 10]]);
  });
});
