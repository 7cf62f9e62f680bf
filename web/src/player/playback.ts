import { create, toJsonString } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { IntervalSchema } from "kino-stubs/kino/history/v1/resources_pb.js";
import { RecordProgressRequestSchema, type RecordProgressRequest } from "kino-stubs/kino/history/v1/history_pb.js";
import type { Lease, StreamChoice } from "kino-stubs/kino/playback/v1/resources_pb.js";
import { NO_TIMEOUT, api, publicApi } from "../api/clients";
import { isCode, reasonOf } from "../api/errors";
import { uuid } from "../lib/request_id";
import { duration, millis, seconds } from "../lib/time";
import { readyEndS } from "./mpd";
import { ProgressReporter, UnsentReports, type Report } from "./progress";
import type { MediaWire } from "./scheme";

const unsent = new UnsentReports(localStorage);
const RECORD_PROGRESS = "/v1/views:recordProgress";

/** One playback: its lease, its bytes and what it reports. Ends when `end` is called, or when the server takes the lease. */
export class Playback implements MediaWire {
  readonly progress = new ProgressReporter((report) => this.#record(report));
  /** Called once when the lease is gone or the playback can't go on for another reason the server named. */
  onLost: (error: ConnectError) => void = () => {};
  /** Until when the newest manifest offers pictures and sound. */
  readyS = 0;
  #renewal: ReturnType<typeof setInterval>;
  #lastReadMs = performance.now();
  #over = false;

  private constructor(
    readonly lease: Lease,
    readonly resumeS: number,
    readonly choice: StreamChoice,
  ) {
    // Both are the server's times, so a wrong clock here doesn't matter.
    const lifeMs = Math.max(3000, millis(lease.expireTime) - millis(lease.startTime));
    this.#renewal = setInterval(() => void this.#renew(lifeMs / 3), lifeMs / 3);
  }

  static async start(title: string, profile: string): Promise<Playback> {
    const answer = await api.playback.startPlayback({ title, profile, device: deviceName(), requestId: uuid() });
    if (!answer.lease || !answer.choice) throw new ConnectError("the answer has no lease", Code.Internal);
    return new Playback(answer.lease, seconds(answer.resumeOffset), answer.choice);
  }

  /** Name of this playback among the player's URLs. */
  get id(): string {
    return this.lease.name.split("/").at(-1) ?? "playback";
  }

  async manifest(file: string, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const parts: BlobPart[] = [];
    const request = { leaseToken: this.lease.token, file };
    for await (const body of publicApi.playback.getManifest(request, { signal })) parts.push(body.data as BlobPart);
    this.#lastReadMs = performance.now();
    const manifest = new Blob(parts);
    this.readyS = readyEndS(new DOMParser().parseFromString(await manifest.text(), "text/xml"));
    return new Uint8Array(await manifest.arrayBuffer());
  }

  async *segment(renditionId: string, number: number, firstOffsetBytes: number, signal: AbortSignal) {
    const request = {
      leaseToken: this.lease.token,
      renditionId,
      firstSegment: number,
      segmentCount: 1,
      firstOffsetBytes: BigInt(firstOffsetBytes),
    };
    for await (const { media } of publicApi.playback.readSegments(request, { signal, ...NO_TIMEOUT })) {
      this.#lastReadMs = performance.now();
      if (media) yield media;
    }
  }

  failed(error: ConnectError): void {
    const final = isCode(error, Code.PermissionDenied, Code.Unauthenticated, Code.NotFound, Code.DataLoss);
    if (final || reasonOf(error).startsWith("LEASE_")) this.#lost(error);
  }

  /** Sends the last report and gives the stream back; also while the page is being closed. */
  end(positionS: number): void {
    if (this.#over) return;
    this.#stop();
    const request = this.#request(this.progress.next(positionS));
    this.#keep(request);
    void beacon(RECORD_PROGRESS, toJsonString(RecordProgressRequestSchema, request)).then(
      (settled) => settled && unsent.drop(this.lease.name),
    );
    void beacon("/v1/leases:end", JSON.stringify({ leaseToken: this.lease.token }));
  }

  /** Reports the position by a request that outlives the page. */
  leaving(positionS: number): void {
    if (this.#over) return;
    const request = this.#request(this.progress.next(positionS));
    this.#keep(request);
    void beacon(RECORD_PROGRESS, toJsonString(RecordProgressRequestSchema, request));
  }

  async #record(report: Report): Promise<void> {
    const request = this.#request(report);
    try {
      await publicApi.history.recordProgress(request);
      unsent.drop(this.lease.name);
    } catch (error) {
      this.#keep(request);
      throw error;
    }
  }

  #request(report: Report): RecordProgressRequest {
    return create(RecordProgressRequestSchema, {
      leaseToken: this.lease.token,
      sequence: BigInt(report.sequence),
      position: duration(report.positionS),
      intervals: report.intervals
        .map(([start, end]) => create(IntervalSchema, { startOffset: duration(start), endOffset: duration(end) }))
        .filter(({ startOffset, endOffset }) => seconds(endOffset) > seconds(startOffset)),
    });
  }

  #keep(request: RecordProgressRequest): void {
    unsent.put(this.lease.name, toJsonString(RecordProgressRequestSchema, request));
  }

  /** Reading renews by itself; only a player that is silent, paused or full, must ask. */
  async #renew(quietMs: number): Promise<void> {
    if (performance.now() - this.#lastReadMs < quietMs) return;
    try {
      await publicApi.playback.renewLease({ leaseToken: this.lease.token });
    } catch (error) {
      this.failed(ConnectError.from(error));
    }
  }

  #lost(error: ConnectError): void {
    if (this.#over) return;
    this.#stop();
    this.onLost(error);
  }

  #stop(): void {
    this.#over = true;
    clearInterval(this.#renewal);
  }
}

/** True when the answer is final: taken, or refused in a way that trying again won't change. */
async function beacon(path: string, body: string): Promise<boolean> {
  try {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body, keepalive: true });
    return answer.ok || (answer.status >= 400 && answer.status < 500 && answer.status !== 429);
  } catch {
    return false;
  }
}

/** Sends what earlier visits could not. */
export const sendUnsentReports = (): Promise<void> => unsent.flush((json) => beacon(RECORD_PROGRESS, json));

/** `Chromium on Linux`: what a person recognises in the list of devices. */
export function deviceName(agent: string = navigator.userAgent): string {
  const pick = (names: readonly [RegExp, string][], other: string) => names.find(([sign]) => sign.test(agent))?.[1] ?? other;
  const browser = pick([[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrome\//, "Chrome"], [/Safari\//, "Safari"]], "Browser");
  const system = pick([[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS/, "macOS"], [/Linux/, "Linux"]], "");
  return system ? `${browser} on ${system}` : browser;
}
