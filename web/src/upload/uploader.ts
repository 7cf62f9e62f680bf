import { signal } from "@preact/signals";
import { Code } from "@connectrpc/connect";
import { Upload_State, type Upload } from "kino-stubs/kino/ingest/v1/resources_pb.js";
import { api } from "../api/clients";
import { isCode, reasonOf } from "../api/errors";
import { once } from "../lib/request_id";
import { highlightOf, type Span } from "../lib/highlights";
import type { titleText } from "../lib/title_text";
import type { HashReply } from "./hash.worker";
import { Meter } from "./meter";
import { sendParts, type Part } from "./parts";
import { ResumeStore, type BegunUpload } from "./resume";

export const resumes = new ResumeStore(localStorage);

/** A part on a slow line takes minutes, the last check of a large file too. */
const PART_TIMEOUT_MS = 300_000;
const COMPLETE_TIMEOUT_MS = 600_000;

/** What was begun from this file and can go on; forgets what the server has given up. */
export async function findBegun(file: File, signal: AbortSignal, replaces = ""): Promise<BegunUpload | undefined> {
  const begun = resumes.find(file, replaces);
  if (!begun) return undefined;
  try {
    const { upload } = await api.ingest.getUpload({ name: begun.upload }, { signal });
    if (upload?.state === Upload_State.RECEIVING || upload?.state === Upload_State.COMPLETE) return begun;
  } catch (error) {
    if (!isCode(error, Code.NotFound, Code.PermissionDenied)) throw error;
  }
  resumes.forget(file, replaces);
  return undefined;
}

/** What a new upload is of. */
export type NewTitle = ReturnType<typeof titleText> & { readonly unpublished: boolean; readonly highlights: readonly Span[] };

/** A title whose film is replaced. Format of `name`: `titles/{title}`. */
export type OldTitle = { readonly name: string; readonly displayName: string };

export type Phase = "starting" | "sending" | "checking" | "refused" | "done";

/** One file on its way. What it shows are signals; `run` may be called again after a failure. */
export class Uploader {
  readonly phase = signal<Phase>("starting");
  readonly receivedBytes = signal(0);
  readonly bytesPerSecond = signal(0);
  readonly secondsLeft = signal<number | undefined>(undefined);
  readonly upload = signal<Upload | undefined>(undefined);
  readonly #replaces: string;
  #stop = new AbortController();
  #sum: Promise<Uint8Array> | undefined;

  constructor(
    readonly file: File,
    /** Words for a new title; not needed when the upload was begun before. Or the title whose film it replaces. */
    private readonly title: NewTitle | OldTitle | undefined,
  ) {
    this.#replaces = title && "name" in title ? title.name : "";
  }

  /** Sends what is missing and completes. Resolves with the upload and its job. */
  async run(): Promise<Upload> {
    this.#stop = new AbortController();
    this.phase.value = "starting";
    this.#sum ??= sumInWorker(this.file);
    this.#sum.catch(() => (this.#sum = undefined));
    const begun = resumes.find(this.file, this.#replaces) ?? (await this.#begin());
    this.phase.value = "sending";
    await this.#send(begun);
    this.phase.value = "checking";
    const sha256 = await (this.#sum ?? sumInWorker(this.file));
    const options = { timeoutMs: COMPLETE_TIMEOUT_MS, signal: this.#stop.signal };
    const { upload } = await api.ingest.completeUpload({ name: begun.upload, sha256 }, options).catch((error: unknown) => this.#refused(begun, error));
    if (!upload) throw new Error("The server answered without an upload");
    resumes.forget(this.file, this.#replaces);
    this.upload.value = upload;
    this.phase.value = "done";
    return upload;
  }

  /** Stops sending; what was sent stays and can be resumed. */
  pause(): void {
    this.#stop.abort();
  }

  /** Gives the upload up for good. */
  async cancel(): Promise<void> {
    this.pause();
    const begun = resumes.find(this.file, this.#replaces);
    if (!begun) return;
    await api.ingest.cancelUpload({ name: begun.upload });
    await this.#abandon(begun);
  }

  /** A file that is no film is refused for good: its upload is over, so neither it nor a title that is still empty is kept. */
  async #refused(begun: BegunUpload, error: unknown): Promise<never> {
    if (reasonOf(error).startsWith("SOURCE_")) {
      await this.#abandon(begun);
      this.phase.value = "refused";
    }
    throw error;
  }

  async #abandon(begun: BegunUpload): Promise<void> {
    resumes.forget(this.file, this.#replaces);
    if (this.#replaces) return;
    // The title stays visible to its owner, who can delete it there too.
    await api.catalog.deleteTitle({ name: begun.title }).catch(() => undefined);
  }

  /** Makes title and upload. Their ids are kept until answered, so a second try continues the first. */
  async #begin(): Promise<BegunUpload> {
    if (!this.title) throw new Error("A new upload needs a title");
    const { file } = this;
    const identity = `${file.size}:${file.lastModified}:${file.name}`;
    const name = "name" in this.title ? this.title.name : await createTitle(identity, this.title);
    const highlights = "name" in this.title ? [] : this.title.highlights;
    const replace = this.#replaces !== "";
    const { upload, partSizeBytes } = await once(`upload:${identity}:${name}:${JSON.stringify(highlights)}`, (requestId) =>
      api.ingest.createUpload({
        title: name,
        fileName: file.name.slice(0, 1000),
        sizeBytes: BigInt(file.size),
        highlights: highlights.map(highlightOf),
        replace,
        requestId,
      }),
    );
    const begun = { upload: upload?.name ?? "", title: name, displayName: this.title.displayName, partSizeBytes: Number(partSizeBytes) };
    resumes.remember(file, begun, this.#replaces);
    return begun;
  }

  #send(begun: BegunUpload): Promise<void> {
    const meter = new Meter();
    const port = {
      read: (from: number, to: number) => readPart(this.file, from, to),
      send: async (part: Part, signal: AbortSignal) => {
        const request = { name: begun.upload, part: { offsetBytes: BigInt(part.offsetBytes), data: part.data, sha256: part.sha256 } };
        return Number((await api.ingest.uploadPart(request, { signal, timeoutMs: PART_TIMEOUT_MS })).receivedBytes);
      },
      received: async (signal: AbortSignal) => {
        const { upload } = await api.ingest.getUpload({ name: begun.upload }, { signal });
        this.upload.value = upload;
        return upload?.state === Upload_State.COMPLETE ? this.file.size : Number(upload?.receivedBytes ?? 0);
      },
      progress: (received: number) => {
        meter.mark(received, performance.now());
        this.receivedBytes.value = received;
        this.bytesPerSecond.value = meter.bytesPerSecond;
        this.secondsLeft.value = meter.secondsLeft(this.file.size);
      },
      wait: backOff,
    };
    return sendParts(this.file.size, begun.partSizeBytes, port, this.#stop.signal);
  }
}

async function createTitle(identity: string, { highlights: _, ...words }: NewTitle): Promise<string> {
  const { title } = await once(`title:${identity}:${JSON.stringify(words)}`, (requestId) => api.catalog.createTitle({ title: words, requestId }));
  return title?.name ?? "";
}

async function readPart(file: File, from: number, to: number): Promise<Part> {
  const data = new Uint8Array(await file.slice(from, to).arrayBuffer());
  return { offsetBytes: from, data, sha256: await sumOf(data) };
}

/** By the browser itself where it may: `crypto.subtle` exists in secure contexts only (HTTPS, or this machine). */
async function sumOf(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const subtle = (crypto as { subtle?: SubtleCrypto }).subtle;
  if (subtle) return new Uint8Array(await subtle.digest("SHA-256", data));
  return (await import("@noble/hashes/sha2.js")).sha256(data);
}

function sumInWorker(file: File): Promise<Uint8Array> {
  const worker = new Worker(new URL("./hash.worker.ts", import.meta.url), { type: "module" });
  const sum = new Promise<Uint8Array>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<HashReply>) => {
      if (data.kind === "done") resolve(data.sha256);
      if (data.kind === "failed") reject(new Error("The file can't be read any more. Choose it again."));
    };
    worker.onerror = () => reject(new Error("The file could not be checked."));
    worker.postMessage(file);
  });
  return sum.finally(() => worker.terminate());
}

function backOff(failures: number, signal: AbortSignal): Promise<void> {
  const ms = Math.min(15_000, 400 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
