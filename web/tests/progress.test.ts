import { describe, expect, it } from "vitest";
import { ProgressReporter, UnsentReports, type Report } from "../src/player/progress";
import { MemoryStorage } from "./memory_storage";

function watch(reporter: ProgressReporter, fromS: number, toS: number): void {
  reporter.tracker.playing(fromS, 1, fromS);
  reporter.tracker.playing(toS, 1, toS);
  reporter.tracker.stopped();
}

describe("ProgressReporter", () => {
  it("numbers its reports from one and sends each stretch until it is acknowledged", async () => {
    const sent: Report[] = [];
    let fail = true;
    const reporter = new ProgressReporter(async (report) => {
      sent.push(report);
      if (fail) throw new Error("no connection");
    });
    watch(reporter, 0, 5);
    await reporter.report(5);
    fail = false;
    watch(reporter, 10, 12);
    await reporter.report(12);
    await reporter.report(12);
    expect(sent).toEqual([
      { sequence: 1, positionS: 5, intervals: [[0, 5]] },
      { sequence: 2, positionS: 12, intervals: [[0, 5], [10, 12]] },
      { sequence: 3, positionS: 12, intervals: [] },
    ]);
  });

  it("has one report on its way and then only the newest position", async () => {
    const sent: number[] = [];
    let answer = () => {};
    const reporter = new ProgressReporter((report) => {
      sent.push(report.positionS);
      return new Promise((resolve) => (answer = () => resolve()));
    });
    const first = reporter.report(1);
    void reporter.report(2);
    const last = reporter.report(3);
    expect(sent).toEqual([1]);
    answer();
    await new Promise((resolve) => setTimeout(resolve));
    expect(sent).toEqual([1, 3]);
    answer();
    await Promise.all([first, last]);
    expect(sent).toEqual([1, 3]);
  });

  it("never sends more stretches than the contract takes", () => {
    const reporter = new ProgressReporter(async () => {});
    for (let i = 0; i < 150; i++) watch(reporter, i * 10, i * 10 + 1);
    expect(reporter.next(0).intervals).toHaveLength(100);
  });
});

describe("UnsentReports", () => {
  it("keeps the newest of each playback until it is settled", async () => {
    const store = new MemoryStorage();
    store.setItem("other", "stays");
    const unsent = new UnsentReports(store);
    unsent.put("leases/a", "1");
    unsent.put("leases/a", "2");
    unsent.put("leases/b", "3");
    const sent: string[] = [];
    await unsent.flush(async (json) => (sent.push(json), json === "2"));
    expect(sent).toEqual(["2", "3"]);
    expect([...store.map]).toEqual([["other", "stays"], ["kino.unsent.leases/b", "3"]]);
  });
});
