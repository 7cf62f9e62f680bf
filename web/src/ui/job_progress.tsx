import { useEffect } from "preact/hooks";
import { Treatment_Kind } from "kino-stubs/kino/preprocessor/v1/resources_pb.js";
import { Job_State, type Job } from "kino-stubs/kino/scheduler/v1/resources_pb.js";
import { sentenceOfStatus } from "../api/errors";
import { renditionLabel } from "../lib/rendition";
import { idOf } from "../state";
import { announce, Badge, ErrorNote, Progress } from "./basics";
import { Icon } from "./icon";

const STATES: Readonly<Record<Job_State, readonly ["good" | "busy" | "bad" | "plain", string]>> = {
  [Job_State.UNSPECIFIED]: ["plain", "Unknown"],
  [Job_State.PENDING]: ["busy", "Waiting"],
  [Job_State.RUNNING]: ["busy", "Encoding"],
  [Job_State.SUCCEEDED]: ["good", "Complete"],
  [Job_State.FAILED]: ["bad", "Failed"],
  [Job_State.CANCELED]: ["plain", "Cancelled"],
  [Job_State.PAUSED]: ["plain", "Paused"],
};

export const JobBadge = ({ job }: { job: Job }) => {
  const [tone, text] = STATES[job.state];
  return <Badge tone={tone}>{text}</Badge>;
};

/** How far a job is, as a whole and for each rendition; tells screen readers the turns, not each percent. */
export function JobProgress({ job }: { job: Job }) {
  const playable = job.playableTime !== undefined;
  const leftOut = job.report?.steps.filter((step) => step.kind === Treatment_Kind.DROP_TRACK) ?? [];
  useEffect(() => announce(STATES[job.state][1]), [job.state]);
  useEffect(() => {
    if (playable) announce("The film can be watched now");
  }, [playable]);
  return (
    <div class="job">
      <div class="job-head">
        <JobBadge job={job} />
        <span class="job-percent">{Math.floor(job.progress * 100)} %</span>
      </div>
      <Progress value={job.progress} label="Whole film" />
      {job.error && <ErrorNote error={sentenceOfStatus(job.error)} />}
      {leftOut.map((step) => (
        <p key={step.reason} class="note">
          {step.reason}
        </p>
      ))}
      {job.renditions.length > 0 && (
        <ul class="renditions">
          {job.renditions.map((one) => (
            <li key={one.renditionId}>
              <span>{renditionLabel(one.renditionId)}</span>
              <Progress thin value={one.progress} label={renditionLabel(one.renditionId)} />
              <span class="count">
                {one.publishedSegmentCount} / {one.plannedSegmentCount}
              </span>
            </li>
          ))}
        </ul>
      )}
      {playable && (
        <a class="button primary" href={`#/titles/${idOf(job.title)}?play`}>
          <Icon name="play" size={20} /> Watch
        </a>
      )}
    </div>
  );
}
