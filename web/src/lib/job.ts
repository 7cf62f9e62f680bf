import { useEffect, useState } from "preact/hooks";
import { Code } from "@connectrpc/connect";
import { Job_State, type Job } from "kino-stubs/kino/scheduler/v1/resources_pb.js";
import { NO_TIMEOUT, api } from "../api/clients";
import { isCode } from "../api/errors";

export const isOver = (job: Job): boolean => [Job_State.SUCCEEDED, Job_State.FAILED, Job_State.CANCELED].includes(job.state);

/** A new stream after a broken one, not at once. */
const RECONNECT_MS = 1500;

/** A job as it changes. A broken stream is opened again; only a final answer of the server ends it. */
export function useJob(name: string): { job: Job | undefined; error: unknown } {
  const [state, setState] = useState<{ job: Job | undefined; error: unknown }>({ job: undefined, error: undefined });
  useEffect(() => {
    const stop = new AbortController();
    void follow(name, stop.signal, (job) => setState({ job, error: undefined })).catch(
      (error: unknown) => !stop.signal.aborted && setState((old) => ({ ...old, error })),
    );
    return () => stop.abort();
  }, [name]);
  return state;
}

async function follow(name: string, signal: AbortSignal, show: (job: Job) => void): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const { job } of api.scheduler.watchJob({ name }, { signal, ...NO_TIMEOUT })) {
        if (!job) continue;
        show(job);
        if (isOver(job)) return;
      }
    } catch (error) {
      if (isCode(error, Code.NotFound, Code.PermissionDenied, Code.Unauthenticated, Code.InvalidArgument)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}
