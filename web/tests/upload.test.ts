import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "kino-stubs/google/rpc/error_details_pb.js";
import { describe, expect, it } from "vitest";
import { Meter } from "../src/upload/meter";
import { MAX_FAILURES, sendParts, type Part, type PartsPort } from "../src/upload/parts";
import { ResumeStore } from "../src/upload/resume";
import { MemoryStorage } from "./memory_storage";

const FILE = Uint8Array.from({ length: 950 }, (_, i) => i % 241);

/** A server that takes parts in order, and may fail before or after taking one. */
class Server implements PartsPort {
  bytes: number[] = [];
  log: string[] = [];
  waits: number[] = [];
  constructor(private readonly faults: Record<number, "before" | "after" | ConnectError> = {}) {}
  async read(from: number, to: number): Promise<Part> {
    return { offsetBytes: from, data: FILE.slice(from, to), sha256: new Uint8Array() };
  }
  async send(part: Part): Promise<number> {
    const fault = this.faults[this.log.push(`${part.offsetBytes}+${part.data.length}`) - 1];
    if (fault instanceof ConnectError) throw fault;
    if (fault === "before") throw new ConnectError("lost", Code.Unavailable);
    if (part.offsetBytes !== this.bytes.length) throw new Error("out of order");
    this.bytes.push(...part.data);
    if (fault === "after") throw new ConnectError("lost", Code.Unavailable);
    return this.bytes.length;
  }
  async received(): Promise<number> {
    return this.bytes.length;
  }
  shown: number[] = [];
  progress(bytes: number): void {
    this.shown.push(bytes);
  }
  async wait(failures: number): Promise<void> {
    this.waits.push(failures);
  }
}

const never = new AbortController().signal;

describe("sendParts", () => {
  it("sends all parts in order and tells how far it is", async () => {
    const server = new Server();
    await sendParts(950, 300, server, never);
    expect(server.bytes).toEqual([...FILE]);
    expect(server.shown).toEqual([0, 300, 600, 900, 950]);
  });

  it("resumes at the byte the server lacks", async () => {
    const server = new Server();
    server.bytes = [...FILE.slice(0, 600)];
    await sendParts(950, 300, server, never);
    expect(server.log).toEqual(["600+300", "900+50"]);
    expect(server.bytes).toEqual([...FILE]);
  });

  it("sends a part again that was lost, and not one whose answer was lost", async () => {
    const server = new Server({ 0: "before", 2: "after" });
    await sendParts(950, 300, server, never);
    expect(server.log).toEqual(["0+300", "0+300", "300+300", "600+300", "900+50"]);
    expect(server.bytes).toEqual([...FILE]);
    expect(server.waits).toEqual([1, 1]);
  });

  it("asks where it is when the server counts otherwise", async () => {
    const mismatch = new ConnectError("offset", Code.FailedPrecondition, undefined, [
      { desc: ErrorInfoSchema, value: { reason: "UPLOAD_OFFSET_MISMATCH", domain: "kino" } },
    ]);
    const server = new Server({ 1: mismatch });
    await sendParts(950, 300, server, never);
    expect(server.bytes).toEqual([...FILE]);
  });

  it("stops at once at an answer that is final", async () => {
    const server = new Server({ 0: new ConnectError("no", Code.PermissionDenied) });
    await expect(sendParts(950, 300, server, never)).rejects.toMatchObject({ code: Code.PermissionDenied });
    expect(server.log).toEqual(["0+300"]);
  });

  it("gives up after too many failures without progress", async () => {
    const server = new Server(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [i, "before" as const])));
    await expect(sendParts(950, 300, server, never)).rejects.toMatchObject({ code: Code.Unavailable });
    expect(server.log).toHaveLength(MAX_FAILURES);
  });

  it("has nothing to send when everything is there", async () => {
    const server = new Server();
    server.bytes = [...FILE];
    await sendParts(950, 300, server, never);
    expect(server.log).toEqual([]);
  });
});

describe("Meter", () => {
  it("tells speed and time left from the last ten seconds", () => {
    const meter = new Meter();
    expect([meter.bytesPerSecond, meter.secondsLeft(100)]).toEqual([0, undefined]);
    meter.mark(0, 0);
    meter.mark(1000, 1000);
    expect([meter.bytesPerSecond, meter.secondsLeft(3000)]).toEqual([1000, 2]);
    for (let s = 2; s <= 30; s++) meter.mark(1000 + (s - 1) * 100, s * 1000);
    expect(meter.bytesPerSecond).toBe(100);
  });
});

describe("ResumeStore", () => {
  const file = { name: "a.mp4", size: 5, lastModified: 7 };
  const begun = { upload: "uploads/u", title: "titles/t", displayName: "A", partSizeBytes: 1 };

  it("knows a file again by name, size and time, and no other", () => {
    const store = new ResumeStore(new MemoryStorage());
    store.remember(file, begun);
    expect(store.find({ ...file })).toEqual(begun);
    expect([{ ...file, name: "b.mp4" }, { ...file, size: 6 }, { ...file, lastModified: 8 }].map((other) => store.find(other))).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    store.forget(file);
    expect(store.find(file)).toBeUndefined();
  });

  it("takes nothing for known that it can't read", () => {
    const storage = new MemoryStorage();
    storage.setItem("kino.upload.5.7.a.mp4", "{broken");
    expect(new ResumeStore(storage).find(file)).toBeUndefined();
  });

  it("tells the upload of a new title from one that replaces a film", () => {
    const store = new ResumeStore(new MemoryStorage());
    store.remember(file, begun, "titles/t");
    expect([store.find(file), store.find(file, "titles/s"), store.find(file, "titles/t")]).toEqual([undefined, undefined, begun]);
    store.forget(file, "titles/t");
    expect(store.find(file, "titles/t")).toBeUndefined();
  });
});
