import { useState } from "preact/hooks";
import { Code } from "@connectrpc/connect";
import { Treatment_Kind } from "kino-stubs/kino/preprocessor/v1/resources_pb.js";
import { TaskExplanation_State, type Attempt, type Job, type TaskExplanation } from "kino-stubs/kino/scheduler/v1/resources_pb.js";
import { api } from "../api/clients";
import { isCode, sentenceOfStatus } from "../api/errors";
import { isOver, useJob } from "../lib/job";
import { useAct, useLoad, usePages } from "../lib/load";
import { dateTime, length, millis, seconds } from "../lib/time";
import { idOf } from "../state";
import { Badge, Dialog, ErrorNote, Heading, Loading, Progress } from "../ui/basics";
import { JobBadge, JobProgress } from "../ui/job_progress";

export function JobsPage() {
  return (
    <div class="narrow">
      <Heading text="Jobs" />
      <JobList />
    </div>
  );
}

/** The jobs one may see, newest first. */
export function JobList() {
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.scheduler.listJobs({ pageToken, pageSize: 30 }, { signal });
    return { items: answer.jobs, nextPageToken: answer.nextPageToken };
  }, []);
  if (error) return <ErrorNote error={error} retry={reload} />;
  if (!value) return <Loading what="jobs" />;
  if (!value.length) return <p class="hint">No film was processed yet.</p>;
  return (
    <>
      <ul class="list">
        {value.map((job) => (
          <li key={job.name}>
            <a class="list-main" href={`#/jobs/${idOf(job.name)}`}>
              <TitleName name={job.title} />
              <span class="dim">{dateTime(job.createTime)}</span>
              {!isOver(job) && <Progress thin value={job.progress} label="Done" />}
            </a>
            <JobBadge job={job} />
          </li>
        ))}
      </ul>
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </>
  );
}

/** The words for a title's name; its id when it is gone. */
function TitleName({ name }: { name: string }) {
  const { value } = useLoad(
    async (signal) => {
      try {
        return (await api.catalog.getTitle({ name }, { signal })).title?.displayName;
      } catch (error) {
        if (isCode(error, Code.NotFound)) return "Deleted film";
        throw error;
      }
    },
    [name],
  );
  return <strong dir="auto">{value ?? idOf(name)}</strong>;
}

export function JobPage({ id }: { id: string }) {
  const { job, error } = useJob(`jobs/${id}`);
  const [asking, setAsking] = useState(false);
  if (!job) return error ? <ErrorNote error={error} /> : <Loading what="the job" />;
  return (
    <div class="narrow">
      <Heading text="Job">
        <TitleName name={job.title} />
      </Heading>
      <ErrorNote error={error} />
      <div class="panel">
        <JobProgress job={job} />
        <JobFacts job={job} />
        {!isOver(job) && (
          <button type="button" class="button danger" onClick={() => setAsking(true)}>
            Cancel job
          </button>
        )}
      </div>
      {asking && <CancelJob job={job} onClose={() => setAsking(false)} />}
      <Tasks job={job} />
    </div>
  );
}

function JobFacts({ job }: { job: Job }) {
  const { report } = job;
  const video = report?.video;
  // Tracks that are left out stand with the progress.
  const steps = report?.steps.filter((step) => step.kind !== Treatment_Kind.DROP_TRACK) ?? [];
  const rate = video?.frameRate ? Number(video.frameRate.numerator) / Number(video.frameRate.denominator) : 0;
  const facts: [string, string][] = [
    ["Begun", dateTime(job.createTime)],
    ["Playable after", job.playableTime ? length((millis(job.playableTime) - millis(job.createTime)) / 1000) : "–"],
    ["Finished after", job.endTime ? length((millis(job.endTime) - millis(job.createTime)) / 1000) : "–"],
    ["Tasks", `${job.doneTaskCount} of ${job.taskCount}`],
    ...(report ? ([["Length", length(seconds(report.duration))]] as [string, string][]) : []),
    ...(video ? ([["Picture", `${video.codec}, ${video.displayWidth}×${video.displayHeight}, ${Number(rate.toFixed(3))} frames/s`]] as [string, string][]) : []),
    ...(report?.audios.length ? ([["Sound", report.audios.map((a) => `${a.codec}, ${a.channelCount} channels`).join("; ")]] as [string, string][]) : []),
  ];
  return (
    <>
      <dl class="facts-list">
        {facts.map(([term, text]) => (
          <div key={term}>
            <dt>{term}</dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
      {steps.length ? (
        <ul class="plain-list">
          {steps.map((step) => (
            <li key={step.reason}>{step.reason}</li>
          ))}
        </ul>
      ) : null}
    </>
  );
}

function CancelJob({ job, onClose }: { job: Job; onClose: () => void }) {
  const { busy, error, run } = useAct();
  const cancel = () => void run(() => api.scheduler.cancelJob({ name: job.name })).then((done) => done && onClose());
  return (
    <Dialog title="Cancel this job?" onClose={onClose}>
      <p>Waiting work is dropped and running work stopped. What is published already stays.</p>
      <ErrorNote error={error} />
      <button type="button" class="button danger" disabled={busy} onClick={cancel}>
        Cancel job
      </button>
    </Dialog>
  );
}

const TASK_STATES: Readonly<Record<TaskExplanation_State, readonly ["good" | "busy" | "bad" | "plain", string]>> = {
  [TaskExplanation_State.UNSPECIFIED]: ["plain", "Unknown"],
  [TaskExplanation_State.WAITING]: ["plain", "Waiting"],
  [TaskExplanation_State.RUNNING]: ["busy", "Running"],
  [TaskExplanation_State.SUCCEEDED]: ["good", "Done"],
  [TaskExplanation_State.FAILED]: ["bad", "Failed"],
  [TaskExplanation_State.CANCELED]: ["plain", "Cancelled"],
};

/** Every task with its tries: what a person needs to see why something failed or waits. */
function Tasks({ job }: { job: Job }) {
  const { value, error, reload, more } = usePages(
    async (pageToken, signal) => {
      const answer = await api.scheduler.explainJob({ name: job.name, pageToken, pageSize: 100 }, { signal });
      return { items: answer.tasks, nextPageToken: answer.nextPageToken };
    },
    [job.name, job.state],
  );
  return (
    <section aria-labelledby="tasks">
      <div class="section-head">
        <h2 id="tasks">Tasks</h2>
        <button type="button" class="button small" onClick={reload}>
          Refresh
        </button>
      </div>
      <ErrorNote error={error} retry={reload} />
      <ul class="list">
        {value?.map((task) => (
          <TaskLine key={task.task} task={task} />
        ))}
      </ul>
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}

function TaskLine({ task }: { task: TaskExplanation }) {
  const [tone, text] = TASK_STATES[task.state];
  return (
    <li>
      <details class="list-main">
        <summary>
          <strong>{task.summary || idOf(task.task)}</strong> {task.nextStep && task.state !== TaskExplanation_State.SUCCEEDED && <span class="dim">{task.nextStep}</span>}
        </summary>
        {task.attempts.map((attempt) => (
          <AttemptView key={attempt.attempt} attempt={attempt} />
        ))}
        {task.attempts.length === 0 && <p class="hint">Not tried yet.</p>}
      </details>
      <Badge tone={tone}>{text}</Badge>
    </li>
  );
}

function AttemptView({ attempt }: { attempt: Attempt }) {
  const took = attempt.endTime ? `, ${length((millis(attempt.endTime) - millis(attempt.startTime)) / 1000)}` : "";
  return (
    <div class="attempt">
      <p>
        Try {attempt.attempt} on {idOf(attempt.worker)}, {dateTime(attempt.startTime)}
        {took}
      </p>
      {attempt.error && <p class="bad-text">{sentenceOfStatus(attempt.error)}</p>}
      {attempt.command && (
        <pre tabIndex={0} aria-label="Command">
          {attempt.command}
        </pre>
      )}
      {attempt.stderrLines.length > 0 && (
        <pre tabIndex={0} aria-label="Last lines of its errors">
          {attempt.stderrLines.join("\n")}
        </pre>
      )}
    </div>
  );
}
