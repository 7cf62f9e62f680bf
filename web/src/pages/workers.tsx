import type { Worker } from "kino-stubs/kino/scheduler/v1/resources_pb.js";
import { api } from "../api/clients";
import { useAct, useLoad } from "../lib/load";
import { dateTime } from "../lib/time";
import { idOf } from "../state";
import { announce, Badge, ErrorNote } from "../ui/basics";

/** The workers of the last hour, for operators: what each has to do, and why one gets no tasks. */
export function Workers() {
  const { value, error, reload } = useLoad(async (signal) => (await api.scheduler.listWorkers({}, { signal })).workers, []);
  return (
    <section aria-labelledby="workers">
      <div class="section-head">
        <h2 id="workers">Workers</h2>
        <button type="button" class="button small" onClick={reload}>
          Refresh
        </button>
      </div>
      <ErrorNote error={error} retry={reload} />
      {value?.length === 0 && <p class="hint">No worker was heard of within the last hour. Films wait until one comes.</p>}
      <ul class="list">
        {value?.map((worker) => (
          <WorkerLine key={worker.name} worker={worker} onChange={reload} />
        ))}
      </ul>
    </section>
  );
}

function WorkerLine({ worker, onChange }: { worker: Worker; onChange: () => void }) {
  const { busy, error, run } = useAct();
  const name = idOf(worker.name);
  const quarantined = worker.quarantineReason !== "";
  const readmit = async () => {
    if (!(await run(() => api.scheduler.readmitWorker({ name: worker.name })))) return;
    announce(`${name} gets tasks again`);
    onChange();
  };
  return (
    <li>
      <div class="list-main">
        <strong>{name}</strong>
        <span class="dim">
          {worker.tasks.length} of {worker.slotCount} slots busy · {worker.capabilities?.coreCount} cores · {worker.capabilities?.ffmpegVersion}
        </span>
        <span class="dim">last heard of {dateTime(worker.lastSeenTime)}</span>
        {quarantined && (
          <span class="bad-text">
            Gets no tasks until {worker.quarantineEndTime ? dateTime(worker.quarantineEndTime) : "it is readmitted"}: {worker.quarantineReason}
          </span>
        )}
        <ErrorNote error={error} />
      </div>
      {quarantined && (
        <button type="button" class="button small" disabled={busy} aria-label={`Readmit ${name}`} onClick={() => void readmit()}>
          Readmit
        </button>
      )}
      {!worker.connected ? <Badge tone="bad">Gone</Badge> : quarantined ? <Badge tone="bad">Quarantine</Badge> : <Badge tone="good">Connected</Badge>}
    </li>
  );
}
